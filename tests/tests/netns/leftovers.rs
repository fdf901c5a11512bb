//! A run of tests that was killed does not spoil the next one.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use orch_tests::{leftovers, netns::NetNs, wait::until};

#[test]
fn what_a_killed_run_left_goes_and_what_is_in_use_stays() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    // Another process of the run, or the first sweep of this one, may come between: what is half
    // made goes with it, and is made again.
    let pins = |name: &str, pid: u32| {
        let pins = Path::new("/sys/fs/bpf").join(format!("orch-{name}-{pid}-0"));
        until("pins are made", || {
            fs::create_dir_all(pins.join("v0/maps")).ok()
        });
        pins
    };
    let left = pins("sweep", ended.id());
    let kept = pins("sweep", std::process::id());
    let used = NetNs::new();
    let old = format!("orch-test-{}-0", ended.id());
    until("an old namespace is made", || {
        let made = Command::new("ip").args(["netns", "add", &old]).status();
        made.unwrap().success().then_some(())
    });

    let copy = |pid: u32| {
        let volume = format!("/nowhere/volumes/orch-e2e-{pid}-0");
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line; exit", "sh", &volume]);
        let shell = shell.stdin(Stdio::piped()).spawn().unwrap();
        // A process is there before its arguments are.
        let arguments = format!("/proc/{}/cmdline", shell.id());
        until("a copy has begun", || {
            (!fs::read(&arguments).unwrap().is_empty()).then_some(())
        });
        shell
    };
    let mut left_over = copy(ended.id());
    let mut in_use = copy(std::process::id());

    leftovers::sweep();

    let netns = Path::new("/run/netns");
    assert!(!left.exists() && !netns.join(old).exists());
    assert!(kept.exists() && netns.join(&used.name).exists());
    assert_eq!(left_over.wait().unwrap().signal(), Some(9));
    assert!(in_use.try_wait().unwrap().is_none());
    in_use.kill().unwrap();
    in_use.wait().unwrap();
    fs::remove_dir_all(kept).unwrap();
}
