//! The answers of an executor to who asks whether it lives.

use ballista_executor::health::ExecutorHealth;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request that are looked at: its first line.
const LOOKED_AT: usize = 512;

/// Answers `/healthz` with 200, and `/readyz` with 200 once the scheduler knows the executor and 503 until then.
pub(crate) async fn serve(listener: TcpListener, health: ExecutorHealth) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let health = health.clone();
        tokio::spawn(async move { answer(stream, &health).await.unwrap_or_default() });
    }
}

async fn answer(mut stream: TcpStream, health: &ExecutorHealth) -> std::io::Result<()> {
    let mut request = [0; LOOKED_AT];
    let length = stream.read(&mut request).await?;
    let (status, body) = if request[..length].starts_with(b"GET /healthz ") {
        ("200 OK", "alive")
    } else if request[..length].starts_with(b"GET /readyz ") {
        if health.is_ready() { ("200 OK", "ready") } else { ("503 Service Unavailable", "not registered") }
    } else {
        ("404 Not Found", "/healthz, /readyz")
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}
