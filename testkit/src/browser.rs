//! A real browser without a window: Chromium, controlled by chromedriver. Both must be in PATH.
//!
//! WebDriver is JSON over HTTP (<https://www.w3.org/TR/webdriver2/>), and these tests need a dozen of its commands. The crates for
//! it bring more than that. One turns on `preserve_order` of serde_json, so JSON fields have another order in all tests than in the
//! released program. The other one has two dozen dependencies, and some of them are long outdated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by failing"
)]

use crate::http::plain_client;
use crate::wait::eventually;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// This variable names the folder for pictures of the pages.
const PICTURES: &str = "STOREFRONT_PICTURES";

/// This variable names the file `axe.min.js` of axe-core, which checks accessibility.
const AXE: &str = "AXE_CORE";

/// The line that chromedriver prints when it listens.
const LISTENS: &str = "started successfully on port ";

/// The longest time of one command. Pages load slowly on a machine that is busy with other tests.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// The longest time that a browser may take to end.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// The name of an element's reference in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// How a browser shows pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// The system prefers dark pages.
    pub is_dark: bool,
    /// The screen is that of a phone.
    pub is_phone: bool,
    /// Scripts are disabled.
    pub has_no_script: bool,
}

/// A browser with its own profile. It ends when this is dropped.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    // The order matters: the profile is removed after the browser has ended.
    _session: Session,
    _profile: tempfile::TempDir,
}

/// A running chromedriver.
struct Driver {
    process: Child,
    port: u16,
}

/// One browser of a chromedriver.
struct Session {
    driver: Driver,
    id: String,
}

impl Drop for Session {
    /// Ends the browser, because killing chromedriver would leave it running. This also runs in a failed test, so it awaits
    /// nothing.
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("left behind: a browser, for {error}");
        }
    }
}

impl Session {
    fn end(&self) -> std::io::Result<()> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.driver.port))?;
        connection.set_read_timeout(Some(END_DEADLINE))?;
        write!(connection, "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", self.id)?;
        // chromedriver answers when the browser has ended.
        connection.read(&mut [0; 1]).map(|_| ())
    }
}

impl Driver {
    /// Starts chromedriver, and waits until it listens.
    fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is needed in PATH: ./dev test installs it");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // The value exists before the wait, so a silent chromedriver is also ended.
        let mut driver = Self { process, port: 0 };
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once(LISTENS)?;
            port.trim_end_matches('.').parse().ok()
        });
        driver.port = port.expect("chromedriver says where it listens");
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    /// Opens a browser.
    pub async fn open(look: Look) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let driver = Driver::start();
        let base = format!("http://127.0.0.1:{}", driver.port);
        let mut args: Vec<_> = ARGUMENTS.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let mut options = json!({"args": args});
        if let Some(binary) = binary() {
            options["binary"] = json!(binary);
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}});
        let http = plain_client().no_proxy().timeout(COMMAND_DEADLINE).build().unwrap();
        let answer = command(&http, Method::POST, &format!("{base}/session"), wanted).await.unwrap();
        let id = answer["sessionId"].as_str().unwrap().to_owned();
        let session = format!("{base}/session/{id}");
        let browser = Self { http, session, _session: Session { driver, id }, _profile: profile };
        let width = if look.is_phone { 390 } else { 1000 };
        browser.resize(width, 900, look.is_phone).await;
        if look.is_dark {
            let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
            browser.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
        }
        if look.has_no_script {
            browser.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
        }
        browser
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        command(&self.http, method, &format!("{}{path}", self.session), body).await
    }

    async fn devtools(&self, name: &str, parameters: Value) {
        let body = json!({"cmd": name, "params": parameters});
        self.send(Method::POST, "/goog/cdp/execute", body).await.unwrap();
    }

    async fn resize(&self, width: u64, height: u64, is_phone: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Loads an address.
    pub async fn go(&self, url: &str) {
        self.send(Method::POST, "/url", json!({"url": url})).await.unwrap();
    }

    /// Returns the current address.
    pub async fn url(&self) -> String {
        self.send(Method::GET, "/url", Value::Null).await.unwrap().as_str().unwrap().to_owned()
    }

    /// The path of an element, or an error if there is none.
    async fn find(&self, css: &str) -> Result<String, String> {
        let body = json!({"using": "css selector", "value": css});
        let found = self.send(Method::POST, "/element", body).await?;
        Ok(format!("/element/{}", found[ELEMENT].as_str().unwrap_or_default()))
    }

    /// Clicks an element, and waits for the next page.
    pub async fn press(&self, css: &str) {
        eventually(&format!("{css} can be pressed"), async || {
            let Ok(element) = self.find(css).await else { return false };
            self.send(Method::POST, &format!("{element}/click"), json!({})).await.is_ok()
        })
        .await;
    }

    /// Types into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        eventually(&format!("{css} can be written into"), async || {
            let Ok(element) = self.find(css).await else { return false };
            self.send(Method::POST, &format!("{element}/value"), json!({ "text": text })).await.is_ok()
        })
        .await;
    }

    /// The visible text of an element. `None` if there is no such element, or the page is changing.
    pub async fn text(&self, css: &str) -> Option<String> {
        let element = self.find(css).await.ok()?;
        let text = self.send(Method::GET, &format!("{element}/text"), Value::Null).await.ok()?;
        text.as_str().map(str::to_owned)
    }

    /// An attribute of an element.
    pub async fn attribute(&self, css: &str, name: &str) -> Option<String> {
        let element = self.find(css).await.ok()?;
        let value = self.send(Method::GET, &format!("{element}/attribute/{name}"), Value::Null).await.ok()?;
        value.as_str().map(str::to_owned)
    }

    /// Waits until an element contains this text. The page is not reloaded.
    pub async fn until(&self, css: &str, text: &str) {
        let mut last = None;
        let says = async || {
            last = self.text(css).await;
            last.as_deref().is_some_and(|found| found.contains(text))
        };
        eventually(&format!("{css} says {text:?}"), says).await;
    }

    /// Runs a script, and returns the value of its promise.
    pub async fn run(&self, promise: &str) -> Value {
        let script = format!("const done = arguments[0]; ({promise}).then(done, (error) => done(`${{error}}`));");
        self.send(Method::POST, "/execute/async", json!({"script": script, "args": []})).await.unwrap()
    }

    /// Runs axe-core on the page. Returns the broken rules with their elements, or `None` if axe-core is not there.
    pub async fn axe(&self) -> Option<Vec<String>> {
        let source = std::fs::read_to_string(std::env::var_os(AXE)?).expect("AXE_CORE names axe.min.js");
        self.send(Method::POST, "/execute/sync", json!({"script": source, "args": []})).await.unwrap();
        let found = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map(
                         (rule) => `${rule.id}: ${rule.help}: ${rule.nodes.map((node) => node.html).join(' ')}`))";
        let found = self.run(found).await;
        let found = found.as_array().unwrap_or_else(|| panic!("axe-core does not run: {found}"));
        Some(found.iter().map(|rule| rule.as_str().unwrap().to_owned()).collect())
    }

    /// Presses a key in the focused element: Tab is U+E004, Enter U+E007.
    pub async fn key(&self, key: char) {
        let actions = [("keyDown", key), ("keyUp", key)].map(|(kind, key)| json!({"type": kind, "value": key}));
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.send(Method::POST, "/actions", keyboard).await.unwrap();
    }

    /// Saves a picture of the whole page, if the variable names a folder.
    pub async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os(PICTURES) else { return };
        let size = "Promise.resolve([window.innerWidth, document.documentElement.scrollHeight])";
        let size = self.run(size).await;
        let (width, height) = (size[0].as_u64().unwrap(), size[1].as_u64().unwrap());
        self.resize(width, height, false).await;
        let picture = self.send(Method::GET, "/screenshot", Value::Null).await.unwrap();
        let picture = BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), picture).unwrap();
        self.resize(width, 900, false).await;
    }
}

/// Sends one command. Returns its answer or its error.
async fn command(http: &reqwest::Client, method: Method, url: &str, body: Value) -> Result<Value, String> {
    let mut call = http.request(method.clone(), url);
    if method == Method::POST {
        call = call.json(&body);
    }
    let answer = call.send().await.map_err(|error| error.to_string())?;
    let is_good = answer.status().is_success();
    let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
    let value = answer["value"].take();
    if is_good { Ok(value) } else { Err(value.to_string()) }
}

/// The browser's program, under the names that distributions use.
fn binary() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}
