//! Where a configuration comes from: a file, or a command line that names what to run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, check,
    problem::{At, Sink},
    raw::RawConfig,
};

/// The file that is taken where none is named.
pub const DEFAULT_FILE: &str = "orch.toml";

/// Where a configuration comes from. Kept, so that a reload reads the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Defaults, with this image.
    Image(String),
    /// Defaults, with this program and its arguments.
    Program(Vec<String>),
}

impl Source {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => load_file(path),
            Self::Image(image) => defaults(image, Some(image), &[]),
            Self::Program(command) => {
                let program = command.first().map_or("", String::as_str);
                defaults(program, None, command)
            }
        }
    }
}

/// Reads and checks a file, and whether what it names can be read.
pub fn examine(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    let sink = Sink::default();
    let raw = RawConfig::parse(&text, &sink);
    check::files(&raw, &sink);
    finish(&path.display().to_string(), &raw, sink)
}

fn load_file(path: &Path) -> Result<Config, ConfigError> {
    parse(&path.display().to_string(), &read(path)?)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Checks the text of a file; `file` is what problems call it.
pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let sink = Sink::default();
    let raw = RawConfig::parse(text, &sink);
    finish(file, &raw, sink)
}

fn defaults(
    named_after: &str,
    image: Option<&str>,
    command: &[String],
) -> Result<Config, ConfigError> {
    let sink = Sink::default();
    let mut raw = RawConfig::with_one_service(&sink);
    if let Some(service) = raw.services.first_mut() {
        service.name.value = base_name(named_after);
        image
            .unwrap_or_default()
            .clone_into(&mut service.backend.image.value);
        let item = |arg: &String| At {
            value: arg.clone(),
            key: service.backend.command.key.clone(),
            line: None,
        };
        service.backend.command.value = command.iter().map(item).collect();
    }
    finish("command line", &raw, sink)
}

fn finish(file: &str, raw: &RawConfig, sink: Sink) -> Result<Config, ConfigError> {
    let config = check::check(raw, &sink);
    if sink.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Invalid {
        file: file.to_owned(),
        problems: sink.into_problems(),
    })
}

/// A service's name from an image or a program: `ghcr.io/me/acts:demo` and `/usr/bin/acts` are
/// both `acts`.
fn base_name(of: &str) -> String {
    let last = of.trim_end_matches('/').rsplit('/').next().unwrap_or(of);
    let bare = last.split([':', '@']).next().unwrap_or(last);
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let replace = |char: char| if fits(char) { char } else { '-' };
    let name: String = bare.chars().map(replace).take(40).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() {
        "service".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_images_and_programs() {
        for (from, name) in [
            ("acts:demo", "acts"),
            ("ghcr.io:5000/me/acts@sha256:00", "acts"),
            ("/usr/bin/my.server", "my-server"),
            ("./acts", "acts"),
            ("...", "service"),
        ] {
            assert_eq!(base_name(from), name, "{from}");
        }
    }

    #[test]
    fn an_image_or_a_program_is_enough() {
        let config = Source::Image("acts:demo".to_owned()).load().unwrap();
        assert_eq!(config.services[0].name, "acts");
        assert_eq!(
            config.services[0].backend.image.as_deref(),
            Some("acts:demo")
        );
        let words = ["python3", "-m", "http.server", "{port}"];
        let source = Source::Program(words.map(str::to_owned).to_vec());
        let config = source.load().unwrap();
        assert_eq!(config.services[0].name, "python3");
        assert_eq!(config.services[0].backend.command, words);
    }
}
