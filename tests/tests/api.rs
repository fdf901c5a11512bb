//! The API as others meet it: requests that its own description allows, and many that it does not.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use orch_tests::orch::{Kind::Process, Orch, Settings};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Names that exist: what is wrong with a name alone would hide all else. And wrong data may also be
/// refused because there is too much of it (413), which is not in the list that it comes with.
const SETTINGS: &str = r#"
[parameters]
"path.name" = "acts"
"path.service" = "acts"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"#;

/// Needs the program in `ORCH_SCHEMATHESIS`: run it with `cargo xtask schemathesis`.
#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing() {
    let program = env::var_os("ORCH_SCHEMATHESIS").expect("ORCH_SCHEMATHESIS names the program");
    let seconds = env::var("ORCH_SCHEMATHESIS_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Settings::new(Process).copies(2);
    settings.status = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut orch = Orch::prepare(settings);
    let token = orch.dir.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    orch.write_file(&format!("token_file = {token:?}\n{}", orch.text()));
    orch.launch();
    orch.wait_ready(2);
    fs::write(orch.dir.path().join("schemathesis.toml"), SETTINGS).unwrap();
    let status = Command::new(program)
        .current_dir(orch.dir.path())
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", orch.settings.status))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--max-time", &seconds, "--checks", "all"])
        .args(["--continue-on-failure", "--no-color"])
        // A loaded machine is slow, and a connection that was idle may end just as it is used.
        .args(["--request-timeout", "120", "--request-retries", "1"])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "it found something");
    // Whatever was asked of it, it goes on.
    orch.scale(3);
    orch.until("a copy is added", || {
        orch.slots().iter().any(|row| row.slot == 2).then_some(())
    });
    assert!(!orch.log().contains("panicked"), "{}", orch.log());
}
