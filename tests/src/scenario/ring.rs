//! Whether answers came round robin.

use std::collections::BTreeSet;

/// Checks that each of `copies` answered in turn, whichever was the first.
pub fn assert_round_robin(answers: &[String], copies: &BTreeSet<String>) {
    for (at, answer) in answers.iter().enumerate() {
        assert!(
            copies.contains(answer),
            "request {at} was answered by {answer}, which is none of {copies:?}: {answers:?}"
        );
    }
    for turn in answers.windows(copies.len()) {
        let distinct: BTreeSet<_> = turn.iter().collect();
        assert_eq!(
            distinct.len(),
            copies.len(),
            "not round robin over {copies:?}: {answers:?}"
        );
    }
    let distinct: BTreeSet<_> = answers.iter().collect();
    assert_eq!(
        distinct.len(),
        copies.len().min(answers.len()),
        "not round robin over {copies:?}: {answers:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &str, copies: &str) {
        let names = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_round_robin(&names(answers), &names(copies).into_iter().collect());
    }

    #[test]
    fn any_copy_may_be_the_first() {
        for answers in ["A", "AB", "CAB", "BCABCABC", "AC"] {
            check(answers, "ABC");
        }
        check("BABA", "AB");
        check("AAA", "A");
    }

    #[test]
    #[should_panic(expected = "not round robin")]
    fn a_copy_twice_in_a_row_is_noticed() {
        check("ABBA", "AB");
    }

    #[test]
    #[should_panic(expected = "not round robin")]
    fn too_few_answers_for_a_whole_turn_are_looked_at_as_well() {
        check("AA", "ABC");
    }
}
