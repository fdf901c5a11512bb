//! How many files may this process have open?

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the host lets it have, but no more than `most`; never fewer than before. Gives how many.
/// Programs that it starts may have as many.
pub fn raise(most: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.map_or(most, |maximum| maximum.min(most));
    if wanted <= now {
        return now;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    // Without the right to it, it stays as it is.
    setrlimit(Resource::Nofile, raised).map_or(now, |()| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows() {
        let before = raise(1);
        assert!(before > 1);
        let more = raise(u64::MAX);
        assert!(more >= before);
        assert_eq!(raise(before), more);
    }
}
