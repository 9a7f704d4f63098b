//! The demo as somebody who tries it by hand has it: the real program, with a shop that listens.

use grantonce_testkit::children::dying_with_parent;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the demo may take until its shop is open, on a busy machine.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// How long it may take to remove what it has made.
const END_DEADLINE: Duration = Duration::from_secs(40);

/// A running demo. Ended when it is dropped, and with it all that it has made.
pub struct Demo {
    process: Child,
    /// `http://127.0.0.1:…`
    pub storefront: String,
}

impl Demo {
    /// Starts one on the servers that the environment names, and waits until its shop is open.
    pub fn open() -> Self {
        let mut process = dying_with_parent(Path::new(env!("CARGO_BIN_EXE_grantonce-demo")))
            .unwrap()
            .args(["--workers", "1"])
            // Less than the demo needs to hear of its roles: it has to see to that itself.
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (said, hears) = mpsc::channel();
        // Reads on to the end: a demo that nobody listens to must not be held up by it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix("storefront") {
                    let _ = said.send(address.trim().to_owned());
                }
            }
        });
        // Made before the wait: one that does not open is ended all the same.
        let mut demo = Self { process, storefront: String::new() };
        demo.storefront = hears.recv_timeout(OPEN_DEADLINE).expect("the demo opens its shop");
        demo
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + END_DEADLINE;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > until {
                eprintln!("left behind: the demo took too long to end");
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
