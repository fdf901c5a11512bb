//! A headless Chromium through chromedriver: the few commands of the `WebDriver` protocol that the tests
//! need, each a request of its own. Everything goes with it when it is dropped.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::Engine;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The start of a browser on a busy host takes long.
const LIMIT: Duration = Duration::from_mins(2);
/// Nothing of the browser's own goes to the network.
const ARGUMENTS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
];

/// A window of a browser.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    files: TempDir,
}

impl Browser {
    /// Starts driver and browser, with an empty profile.
    pub fn open() -> Self {
        // Some of its files it leaves where temporary ones go, and some at home.
        let files = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", files.path())
            .env("XDG_CONFIG_HOME", files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian's chromium-driver) is installed");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let (_, port) = line.split_once("successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver tells its port");
        // It must never block on what it says.
        std::thread::spawn(move || lines.count());
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            files,
        };
        let profile = format!("--user-data-dir={}/profile", browser.files.path().display());
        let arguments: Vec<_> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.ask("POST", "/session", &wanted);
        session["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        // Without a size, headless Chromium may wait for ever for the first picture.
        browser.look(1240, 1180, "light");
        browser
    }

    /// Opens a page, and waits until it is loaded.
    pub fn go(&self, url: &str) {
        self.tell("url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub fn run(&self, body: &str) -> Value {
        self.tell("execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The same where the last of its arguments is to be called with the result.
    pub fn run_later(&self, body: &str) -> Value {
        self.tell("execute/async", &json!({ "script": body, "args": [] }))
    }

    /// Messages of the browser's console, since they were last asked for.
    pub fn console(&self) -> Vec<Value> {
        self.log("browser")
    }

    /// Addresses that anything was asked of, since they were last asked for.
    pub fn requests(&self) -> Vec<String> {
        let messages = self.log("performance").into_iter();
        let sent = messages.filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let sent = message["message"]["method"] == "Network.requestWillBeSent";
            let url = message["message"]["params"]["request"]["url"].as_str()?;
            sent.then(|| url.to_owned())
        });
        sent.collect()
    }

    /// Shows pages in this many pixels, and in `light` or `dark`.
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Whether scripts run, from the next page on.
    pub fn scripts(&self, run: bool) {
        self.devtools(
            "Emulation.setScriptExecutionDisabled",
            &json!({ "value": !run }),
        );
    }

    /// What is seen, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let text = self.ask("GET", &self.path("screenshot"), &Value::Null);
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text.as_str().unwrap()).unwrap()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.tell("se/log", &json!({ "type": kind }));
        log.as_array().unwrap().clone()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.tell("goog/cdp/execute", &body);
    }

    fn path(&self, what: &str) -> String {
        format!("/session/{}/{what}", self.session)
    }

    fn tell(&self, what: &str, body: &Value) -> Value {
        self.ask("POST", &self.path(what), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (port, length) = (self.port, body.len());
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // The driver does not always end a connection that it was told to end: the length counts.
        let mut stream = BufReader::new(stream);
        let (mut status, mut length) = (String::new(), 0);
        stream.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            match line.trim_end().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        let value = answer["value"].take();
        assert!(status.starts_with("HTTP/1.1 200"), "{path}: {value:#}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's end does not end the browser: those of this profile are ours.
        let profile = self.files.path().display().to_string();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in pids {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().parse::<i32>();
            if let Ok(pid) = name
                && String::from_utf8_lossy(&line).contains(&profile)
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
