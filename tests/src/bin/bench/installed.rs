//! What is installed here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::Result;

/// Whether a program is installed, and how to install it if not.
pub(crate) fn installed(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain([Path::new("/usr/sbin").to_owned()])
            .any(|dir| dir.join(program).exists())
    });
    if found {
        return Ok(());
    }
    Err(format!("{program} is not installed (apt-get install {package})").into())
}

/// Directory of nginx's stream module, if the module is one of its own; an error if there is none.
pub(crate) fn stream_module() -> Result<Option<PathBuf>> {
    installed("nginx", "nginx-light")?;
    let output = Command::new("nginx").arg("-V").output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !text.contains("--with-stream=dynamic") {
        return if text.contains("--with-stream") {
            Ok(None)
        } else {
            Err("nginx has no stream module".into())
        };
    }
    let path = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--modules-path="))
        .map(|dir| Path::new(dir).join("ngx_stream_module.so"))
        .filter(|path| path.exists());
    path.map(Some)
        .ok_or_else(|| "no stream module (apt-get install libnginx-mod-stream)".into())
}
