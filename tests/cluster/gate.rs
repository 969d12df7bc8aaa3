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

/// Lets everything through until it is told which request to hold, for ever. Gates of one test know of each other.
pub(crate) struct Gate {
    port: u16,
    number: usize,
    held: Arc<Mutex<Option<Hold>>>,
}

/// Requests of a method whose address holds a text.
pub(crate) type Requests = (&'static str, &'static str);

pub(crate) const READ_USERS: Requests = ("GET ", "/users/part-");
pub(crate) const WRITE_USERS: Requests = ("PUT ", "/users/part-");
pub(crate) const READ_PAIRS: Requests = ("GET ", "/pairs/part-");

struct Hold {
    /// So many requests of this kind come first.
    after: usize,
    of: Requests,
    /// The next one of this kind is held.
    then: Requests,
    began: Sender<usize>,
}

impl Gate {
    pub(crate) fn before(server: &S3Server) -> Self {
        Self::open(server, 0, Arc::default())
    }

    /// Another gate to the same server, which counts with this one.
    pub(crate) fn beside(&self, server: &S3Server) -> Self {
        Self::open(server, self.number + 1, Arc::clone(&self.held))
    }

    fn open(server: &S3Server, number: usize, held: Arc<Mutex<Option<Hold>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, of_threads) = (endpoint(server), Arc::clone(&held));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, held) = (to.clone(), Arc::clone(&of_threads));
                std::thread::spawn(move || pass(stream, &to, number, &held));
            }
        });
        Self { port, number, held }
    }

    /// The store as an executor behind the gate sees it.
    pub(crate) fn environment(&self, server: &S3Server) -> [(&'static str, String); 5] {
        server.environment().map(|(name, value)| match name {
            "AWS_ENDPOINT" => (name, format!("http://127.0.0.1:{}", self.port)),
            _ => (name, value),
        })
    }

    /// Holds the first request of a kind that comes when so many of another have come, and says at which gate.
    pub(crate) fn hold(&self, after: usize, of: Requests, then: Requests) -> Receiver<usize> {
        let (began, told) = channel();
        *self.held.lock().unwrap() = Some(Hold { after, of, then, began });
        told
    }
}

fn endpoint(server: &S3Server) -> String {
    let [(_, endpoint), ..] = server.environment();
    endpoint.trim_start_matches("http://").to_owned()
}

/// One connection, its requests looked at on their way; what begins like one is one, bodies are Parquet.
fn pass(mut client: TcpStream, to: &str, gate: usize, held: &Mutex<Option<Hold>>) {
    let Ok(mut server) = TcpStream::connect(to) else { return };
    let (Ok(mut answers), Ok(mut back)) = (server.try_clone(), client.try_clone()) else { return };
    std::thread::spawn(move || drop(std::io::copy(&mut answers, &mut back)));
    let mut bytes = [0; 16_384];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..length]);
        let line = text.lines().next().unwrap_or_default();
        let is = |(method, part): Requests| line.starts_with(method) && line.contains(part);
        let mut waiting = held.lock().unwrap();
        let now = waiting.as_ref().is_some_and(|hold| hold.after == 0 && is(hold.then));
        if let Some(hold) = waiting.take_if(|_| now) {
            drop(waiting);
            let _: Result<(), _> = hold.began.send(gate);
            // Nothing of this connection goes on, its body neither.
            loop {
                std::thread::park();
            }
        }
        if let Some(hold) = waiting.as_mut().filter(|hold| is(hold.of)) {
            hold.after = hold.after.saturating_sub(1);
        }
        drop(waiting);
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

/// Copies files of a folder into the bucket.
pub(crate) fn upload(server: &S3Server, from: &std::path::Path, to: &str) {
    let location = Location::parse(to).unwrap();
    let store = server.stores().store(&location).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = location.path().clone().join(file.file_name().unwrap().to_str().unwrap());
        runtime.block_on(store.put(&target, std::fs::read(&file).unwrap().into())).unwrap();
    }
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
