//! Files that a configuration names: can they be read? Asked by `orch check` alone: other verbs have
//! no use for them, and those who call these may not be allowed to.

use std::{fs, path::Path};

use crate::config::{
    problem::{At, Sink},
    raw::RawConfig,
};

pub(crate) fn check(raw: &RawConfig, sink: &Sink) {
    for service in &raw.services {
        let tls = &service.http.tls;
        if !tls.listen.value.is_empty() {
            readable(&tls.certificate, sink);
            readable(&tls.key, sink);
        }
    }
}

fn readable(raw: &At<String>, sink: &Sink) {
    let path = Path::new(&raw.value);
    // Another path is refused for what it is.
    if path.is_absolute()
        && let Err(error) = fs::read(path)
    {
        sink.at(raw, format!("{} cannot be read: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, source};

    #[test]
    fn files_for_tls_must_be_readable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("orch.toml");
        let certificate = dir.path().join("certificate.pem");
        let text = format!(
            "[[service]]\nmode = \"http\"\nbackend.image = \"a\"\n[service.http.tls]\nlisten = \"443\"\n\
             certificate = {certificate:?}\nkey = {:?}\n",
            dir.path(),
        );
        std::fs::write(&file, text).unwrap();
        let Err(ConfigError::Invalid { problems, .. }) = source::examine(&file) else {
            panic!("there is no certificate");
        };
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(6), Some(7)], "{problems:?}");
        assert_eq!(problems[0].key, "service[0].http.tls.certificate");
        assert!(problems[0].text.contains("No such file"), "{problems:?}");

        std::fs::write(&certificate, "").unwrap();
        let Err(ConfigError::Invalid { problems, .. }) = source::examine(&file) else {
            panic!("a directory is no key");
        };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(source::Source::File(file).load().is_ok(), "for other verbs");
    }
}
