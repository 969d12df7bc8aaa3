//! A way to the S3 server that can be held at a chosen request, so that a kill comes in the middle of a task.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use futures::TryStreamExt;
use item_affinity_storage::Location;

use crate::common::S3Server;

/// Lets everything through until it is told which request of a user part to hold, for ever.
pub(crate) struct Gate {
    port: u16,
    held: Arc<Mutex<Option<Hold>>>,
}

struct Hold {
    /// Requests of user parts that still pass.
    passing: usize,
    began: Sender<()>,
}

impl Gate {
    pub(crate) fn before(server: &S3Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::<Mutex<Option<Hold>>>::default();
        let (to, of_threads) = (endpoint(server), Arc::clone(&held));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, held) = (to.clone(), Arc::clone(&of_threads));
                std::thread::spawn(move || pass(stream, &to, &held));
            }
        });
        Self { port, held }
    }

    /// The store as an executor behind the gate sees it.
    pub(crate) fn environment(&self, server: &S3Server) -> [(&'static str, String); 5] {
        server.environment().map(|(name, value)| match name {
            "AWS_ENDPOINT" => (name, format!("http://127.0.0.1:{}", self.port)),
            _ => (name, value),
        })
    }

    /// Holds this request of a user part, counted from 1, and says when it has come.
    pub(crate) fn hold_at_part(&self, number: usize) -> Receiver<()> {
        let (began, told) = channel();
        *self.held.lock().unwrap() = Some(Hold { passing: number - 1, began });
        told
    }
}

fn endpoint(server: &S3Server) -> String {
    let [(_, endpoint), ..] = server.environment();
    endpoint.trim_start_matches("http://").to_owned()
}

/// One connection, its requests looked at on their way; they have no bodies.
fn pass(mut client: TcpStream, to: &str, held: &Mutex<Option<Hold>>) {
    let Ok(mut server) = TcpStream::connect(to) else { return };
    let (Ok(mut answers), Ok(mut back)) = (server.try_clone(), client.try_clone()) else { return };
    std::thread::spawn(move || drop(std::io::copy(&mut answers, &mut back)));
    let mut bytes = [0; 16_384];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..length]);
        if text.starts_with("GET ") && text.lines().next().is_some_and(|line| line.contains("/users/part-")) {
            let mut held = held.lock().unwrap();
            match held.as_mut() {
                Some(hold) if hold.passing == 0 => {
                    let _: Result<(), _> = hold.began.send(());
                    continue;
                }
                Some(hold) => hold.passing -= 1,
                None => {}
            }
        }
        if server.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// Deletes one file of user states of a solution; gives its name within the version.
pub(crate) fn delete_one_user_part(server: &S3Server, solution: &str) -> String {
    let store = server.stores().store(&Location::parse(solution).unwrap()).unwrap();
    let deleted = async {
        let objects = store.list(None).try_collect::<Vec<_>>().await.unwrap();
        let prefix = solution.strip_prefix(&format!("s3://{}/", S3Server::BUCKET)).unwrap();
        let mut parts = objects
            .into_iter()
            .map(|object| object.location)
            .filter(|path| path.as_ref().starts_with(prefix) && path.as_ref().contains("/users/part-"));
        let part = parts.next().expect("a user part");
        store.delete(&part).await.unwrap();
        part.to_string()
    };
    let path = tokio::runtime::Runtime::new().unwrap().block_on(deleted);
    path[path.find("users/").unwrap()..].to_owned()
}
