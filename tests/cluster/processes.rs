//! Scheduler and executors as children of a test, gone with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::item_affinity;

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks a health port until it answers 200.
fn wait_until_ready(port: u16, path: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !answers(port, path) {
        assert!(Instant::now() < deadline, "nothing is ready at {port}{path}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn answers(port: u16, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

fn start(command: &mut Command) -> Child {
    command.env("RUST_LOG", "off").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(crate) struct Scheduler {
    child: Child,
    port: u16,
}

impl Scheduler {
    /// A scheduler that gives up executors after five seconds.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let mut command = item_affinity();
        command.args(["cluster", "scheduler", "--executor-timeout", "5s", "--port", &port.to_string()]);
        let scheduler = Self { child: start(&mut command), port };
        wait_until_ready(port, "/healthz");
        scheduler
    }

    pub(crate) fn address(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) struct Executor(Child);

impl Executor {
    /// An executor of one task at a time that the scheduler knows.
    pub(crate) fn start(scheduler: &Scheduler, environment: &[(&'static str, String)], work_dir: &Path) -> Self {
        Self::with(1, "512MB", scheduler, environment, work_dir)
    }

    /// The same with another number of tasks or limit of memory.
    pub(crate) fn with(
        threads: usize,
        memory: &str,
        scheduler: &Scheduler,
        environment: &[(&'static str, String)],
        work_dir: &Path,
    ) -> Self {
        let health = free_port();
        let mut command = item_affinity();
        command.envs(environment.iter().cloned());
        command.args(["cluster", "executor", "--heartbeat", "1s", "--retry-timeout", "2s"]);
        command.args(["--threads", &threads.to_string()]);
        command.args(["--scheduler", &scheduler.address(), "--memory-limit", memory]);
        for (name, port) in [("--port", free_port()), ("--grpc-port", free_port()), ("--health-port", health)] {
            command.args([name, &port.to_string()]);
        }
        command.arg("--work-dir").arg(work_dir);
        let executor = Self(start(&mut command));
        wait_until_ready(health, "/readyz");
        executor
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
