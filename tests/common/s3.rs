//! A real S3 server (moto) on loopback, started by the test that needs it and gone with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server with one bucket.
pub(crate) struct S3Server {
    /// None for a server that somebody else started.
    process: Option<Child>,
    address: String,
}

impl S3Server {
    pub(crate) const BUCKET: &str = "lake";

    /// Starts the server. Without one on this machine the test is skipped, and says so; when
    /// `ITEM_AFFINITY_MOTO_SERVER` names one, it has to work. `ITEM_AFFINITY_S3_ENDPOINT` names one that runs.
    pub(crate) fn start(test: &str) -> Option<Self> {
        if let Ok(endpoint) = std::env::var("ITEM_AFFINITY_S3_ENDPOINT") {
            let address = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
            let server = Self { process: None, address };
            server.wait_for_bucket();
            return Some(server);
        }
        let program = std::env::var_os("ITEM_AFFINITY_MOTO_SERVER").map(PathBuf::from).or_else(|| {
            let local = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/moto_server");
            local.exists().then_some(local)
        });
        let Some(program) = program else {
            println!("skipped 1 test ({test}): no .venv/bin/moto_server and ITEM_AFFINITY_MOTO_SERVER is not set");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port();
        let process = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", program.display()));
        let server = Self { process: Some(process), address: format!("127.0.0.1:{port}") };
        server.wait_for_bucket();
        Some(server)
    }

    fn wait_for_bucket(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.put_bucket() {
            assert!(Instant::now() < deadline, "{} does not answer", self.address);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The server for jobs inside the test.
    pub(crate) fn stores(&self) -> item_affinity_storage::Stores {
        item_affinity_storage::Stores::with_settings(self.environment())
    }

    fn put_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return false };
        let request = format!(
            "PUT /{} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            Self::BUCKET,
            self.address
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && (answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 409"))
    }

    /// What a client needs to know, as environment variables.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.kill());
            drop(process.wait());
        }
    }
}
