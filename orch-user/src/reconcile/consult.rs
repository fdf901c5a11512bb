//! Asks a service's program how many copies there should be, for the policy `heuristic`. The
//! program runs in a task of its own; its answer comes back as an event.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Controller, Event, execute::whole, tables::Tables};
use crate::{
    scale::{
        Policy,
        heuristic::{Heuristic, Question, read_answer},
    },
    state::Moment,
};

/// So much of what a program prints is shown when it is no answer.
const SHOWN: usize = 60;

/// Where a service is with its program.
#[derive(Default)]
pub(super) struct Consult {
    /// When it was asked last.
    asked_at: Option<Moment>,
    waits: bool,
    /// What was wrong the last time, so that it is told once.
    trouble: Option<String>,
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsultError {
    #[error("cannot run {program}")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} did not answer within {limit:?}")]
    Late { program: String, limit: Duration },
    #[error("{program} ended with {status}: {shown}")]
    Failed {
        program: String,
        status: std::process::ExitStatus,
        shown: String,
    },
    #[error("{program} printed {shown:?}; it must print one whole number, like 2 or -1")]
    Unreadable { program: String, shown: String },
}

impl<T: Tables> Controller<T> {
    /// Asks the program of a service, if it has one and it is time.
    pub(super) fn consult(&mut self, service: usize, now: Moment) {
        let Some(hosted) = self.services.get_mut(service) else {
            return;
        };
        let rules = &hosted.config.scale;
        let Policy::Heuristic(heuristic) = &rules.policy else {
            return;
        };
        let due = hosted
            .consult
            .asked_at
            .is_none_or(|at| now >= at + heuristic.interval);
        if hosted.leaving || hosted.consult.waits || !due {
            return;
        }
        hosted.consult.asked_at = Some(now);
        hosted.consult.waits = true;
        let question = hosted.policy.scaler().question(heuristic.interval, rules);
        let (service, heuristic) = (hosted.config.name.clone(), heuristic.clone());
        let report = self.report.clone();
        tokio::spawn(async move {
            let result = ask(&heuristic, &question).await;
            let _ = report.send(Event::Consulted { service, result });
        });
    }

    pub(super) fn consulted(&mut self, service: &str, result: Result<i32, ConsultError>) {
        let now = self.now();
        let mut services = self.services.iter_mut();
        let Some(hosted) = services.find(|hosted| hosted.config.name == service) else {
            return;
        };
        hosted.consult.waits = false;
        // The file may say something else since it was asked.
        if !matches!(hosted.config.scale.policy, Policy::Heuristic(_)) {
            return;
        }
        match result {
            Ok(delta) => {
                hosted.consult.trouble = None;
                hosted.policy.answer(delta, now);
            }
            Err(error) => {
                let text = format!("the number of copies stays: {}", whole(&error));
                if hosted.consult.trouble.as_ref() != Some(&text) {
                    hosted.consult.trouble = Some(text.clone());
                    self.door.journal.record(service, None, "error", text);
                    self.dirty = true;
                }
            }
        }
    }
}

async fn ask(heuristic: &Heuristic, question: &Question) -> Result<i32, ConsultError> {
    let name = || heuristic.program.first().cloned().unwrap_or_default();
    let answer = timeout(heuristic.timeout, run(heuristic, question)).await;
    let output = match answer {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            let program = name();
            return Err(ConsultError::Run { program, source });
        }
        Err(_) => {
            return Err(ConsultError::Late {
                program: name(),
                limit: heuristic.timeout,
            });
        }
    };
    let shown = |bytes: &[u8]| -> String {
        let text = String::from_utf8_lossy(bytes);
        text.trim().chars().take(SHOWN).collect()
    };
    if !output.status.success() {
        return Err(ConsultError::Failed {
            program: name(),
            status: output.status,
            shown: shown(&output.stderr),
        });
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    read_answer(&printed).ok_or_else(|| ConsultError::Unreadable {
        program: name(),
        shown: shown(&output.stdout),
    })
}

/// Runs the program; it dies with the future.
async fn run(heuristic: &Heuristic, question: &Question) -> io::Result<std::process::Output> {
    let (program, arguments) = heuristic
        .program
        .split_first()
        .ok_or(io::ErrorKind::NotFound)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(question)?;
        // One that does not read what it is told may still answer.
        match stdin.write_all(&text).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{EXAMPLE, parse},
        scale::Scaler,
    };

    async fn answer(script: &str, limit: Duration) -> Result<i32, ConsultError> {
        let heuristic = Heuristic {
            program: ["sh", "-c", script].map(str::to_owned).to_vec(),
            interval: limit,
            timeout: limit,
        };
        let rules = parse("example", EXAMPLE).unwrap().services.remove(0).scale;
        let question = Scaler::new(3, 0, Moment::ZERO).question(limit, &rules);
        ask(&heuristic, &question).await
    }

    #[tokio::test]
    async fn a_program_reads_the_metrics_and_its_number_is_the_answer() {
        let long = Duration::from_mins(1);
        assert_eq!(answer("echo -2", long).await.unwrap(), -2);
        let desired = r#"sed 's/.*"desiredServerCount":\([0-9]*\).*/\1/'"#;
        assert_eq!(answer(desired, long).await.unwrap(), 3);
        let unread = answer("echo two", long).await.unwrap_err();
        assert_eq!(
            unread.to_string(),
            "sh printed \"two\"; it must print one whole number, like 2 or -1"
        );
        let failed = answer("echo oh >&2; exit 3", long).await.unwrap_err();
        assert_eq!(failed.to_string(), "sh ended with exit status: 3: oh");
    }

    #[tokio::test]
    async fn one_that_is_late_or_missing_gives_no_answer() {
        let late = answer("sleep 60", Duration::from_millis(100)).await;
        assert!(matches!(late, Err(ConsultError::Late { .. })), "{late:?}");
        let heuristic = Heuristic {
            program: vec!["/nowhere/to/be/found".to_owned()],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        let rules = parse("example", EXAMPLE).unwrap().services.remove(0).scale;
        let question = Scaler::new(3, 0, Moment::ZERO).question(heuristic.interval, &rules);
        let missing = ask(&heuristic, &question).await.unwrap_err();
        assert_eq!(missing.to_string(), "cannot run /nowhere/to/be/found");
    }
}
