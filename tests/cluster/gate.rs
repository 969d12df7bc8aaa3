//! A way to the S3 server that can be held at a chosen request, so that a kill comes in the middle of a task.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use datafusion::object_store::path::Path;
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

/// What lies below a location of the bucket: addresses, sorted.
pub(crate) fn objects(server: &S3Server, below: &str) -> Vec<String> {
    let store = server.stores().store(&Location::parse(below).unwrap()).unwrap();
    let listed = tokio::runtime::Runtime::new().unwrap().block_on(store.list(None).try_collect::<Vec<_>>());
    let address = |path: &Path| format!("s3://{}/{path}", S3Server::BUCKET);
    let mut found: Vec<_> = listed.unwrap().iter().map(|object| address(&object.location)).collect();
    found.retain(|address| address.starts_with(&format!("{below}/")));
    found.sort();
    found
}

/// The commits of an output.
pub(crate) fn commits(server: &S3Server, output: &str) -> usize {
    objects(server, output).iter().filter(|address| address.contains("/_item_affinity/commits/")).count()
}

/// Deletes one file of user states of a solution; gives its name within the version.
pub(crate) fn delete_one_user_part(server: &S3Server, solution: &str) -> String {
    let part = objects(server, solution).into_iter().find(|path| path.contains("/users/part-")).expect("a user part");
    let location = Location::parse(&part).unwrap();
    let store = server.stores().store(&location).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(store.delete(location.path())).unwrap();
    part[part.find("users/").unwrap()..].to_owned()
}
