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
    // Names that exist: what is wrong with a name alone would hide all else.
    let names = "[parameters]\n\"path.name\" = \"acts\"\n\"path.service\" = \"acts\"\n";
    fs::write(orch.dir.path().join("schemathesis.toml"), names).unwrap();
    let status = Command::new(program)
        .current_dir(orch.dir.path())
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", orch.settings.status))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--max-time", &seconds, "--checks", "all"])
        .args(["--continue-on-failure", "--no-color"])
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
