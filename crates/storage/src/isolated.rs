//! Decoding in a process of its own, for files that nobody vouches for.
//!
//! Preflight and the guards around the decoder catch a damaged file, and almost every hostile one. What they cannot catch is a
//! decoder that asks for more memory than there is: the process aborts. Here that process is another one, which reads one file
//! under limits of memory and time and sends the record batches through a pipe; its death is an error like any other.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::footer::Refusal;
use crate::parquet_input::Batches;
use crate::{Error, ErrorKind, InputFile, Location, ParquetFault, Result, Stores, open_parquet, s3};

/// What the program that decodes is called with.
pub const DECODE_COMMAND: &str = "__decode";

/// Address space besides the bytes of the file: a batch and the texts of a page may have 1 GiB each.
const MEMORY_BYTES: u64 = 4 << 30;
/// Processor time besides one second for a MiB of the file.
const CPU_SECONDS: u64 = 600;
/// Bytes of an error message, and of what stands before it.
const MESSAGE_BYTES: u64 = 64 << 10;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// From now on, Parquet inputs of [`Stores::from_env`] are decoded by processes of `program`, which is called with
/// [`DECODE_COMMAND`] and has to call [`serve_decoding`] then. The first call counts.
///
/// Footers are checked and decoded by this process, as before. What the query engine reads by itself, such as tables in SQL,
/// is decoded by it. Each run of row groups costs the start of a process, which reads the footer again, and a pipe.
pub fn isolate_inputs(program: PathBuf) {
    PROGRAM.get_or_init(|| program);
}

/// A Parquet file that another process decodes, pinned as it was listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Apart {
    url: String,
    size: u64,
    last_modified: String,
    e_tag: Option<String>,
    version: Option<String>,
    /// Root columns of texts that are read as dictionaries.
    dictionaries: Vec<usize>,
}

/// What such a process is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    file: Apart,
    /// Bytes that the columns may have.
    budget: u64,
    row_groups: Vec<usize>,
    columns: Vec<usize>,
    batch_size: usize,
}

impl Apart {
    /// A file, if files of these stores are decoded apart.
    pub(crate) fn of(stores: &Stores, file: &InputFile) -> Option<Self> {
        let apart = PROGRAM.get().is_some() && stores.are_of_the_environment();
        apart.then(|| Self {
            url: file.location.url().to_string(),
            size: file.meta.size,
            last_modified: file.meta.last_modified.to_rfc3339(),
            e_tag: file.meta.e_tag.clone(),
            version: file.meta.version.clone(),
            dictionaries: Vec::new(),
        })
    }

    fn input(&self) -> Result<InputFile> {
        let location = Location::parse(&self.url)?;
        let last_modified = DateTime::parse_from_rfc3339(&self.last_modified).map_err(malformed)?;
        let meta = ObjectMeta {
            location: location.path().clone(),
            last_modified: last_modified.with_timezone(&Utc),
            size: self.size,
            e_tag: self.e_tag.clone(),
            version: self.version.clone(),
        };
        Ok(InputFile { location, meta, partitions: Vec::new(), delta_version: None })
    }

    /// Asks for a string column (root index) as a dictionary.
    pub(crate) fn with_dictionary(&mut self, column: usize) {
        self.dictionaries.push(column);
    }

    /// The batches of some row groups and root columns. Dropping the stream ends the process.
    ///
    /// name: the file in messages; budget: bytes that the columns may have
    pub(crate) fn decode(
        &self,
        name: &str,
        budget: u64,
        row_groups: &[usize],
        columns: &[usize],
        batch_size: usize,
    ) -> Result<Batches> {
        let (row_groups, columns) = (row_groups.to_vec(), columns.to_vec());
        let part = Part { file: self.clone(), budget, row_groups, columns, batch_size };
        let program = PROGRAM.get().ok_or_else(|| bug("no program decodes inputs"))?;
        // Enough that neither side waits for the other at every batch.
        let (sender, receiver) = mpsc::channel(2);
        let name = name.to_owned();
        spawn_blocking(move || {
            if let Err(error) = run(program, &part, &name, &sender) {
                // Nobody listens any more when the stream was dropped.
                let _ = sender.blocking_send(Err(error));
            }
        });
        let batches = stream::unfold(receiver, async |mut receiver| {
            let item: Result<RecordBatch> = receiver.recv().await?;
            Some((item, receiver))
        });
        Ok(batches.boxed())
    }
}

fn run(program: &Path, part: &Part, name: &str, batches: &mpsc::Sender<Result<RecordBatch>>) -> Result<()> {
    let failed = |error: std::io::Error| Error::Store {
        operation: "decoding in another process",
        reason: error.to_string(),
        file: name.to_owned(),
        source: Some(Box::new(error)),
    };
    let mut decoder = Decoder::start(program, part).map_err(failed)?;
    let answered = decoder.pass_on(batches);
    if matches!(answered, Answered::Unwanted) {
        return Ok(());
    }
    let (status, message) = decoder.end().map_err(failed)?;
    match answered {
        // What cannot be read was cut short then.
        _ if !status.success() => Err(ended(status, &message, name)),
        Answered::Broken(error) => Err(bug(&format!("a decoded batch cannot be read: {error}"))),
        Answered::All | Answered::Unwanted => Ok(()),
    }
}

/// The error of a process that did not end well.
fn ended(status: ExitStatus, message: &str, file: &str) -> Error {
    let kind = status.code().and_then(|code| u8::try_from(code).ok()).and_then(ErrorKind::of_exit_code);
    if let Some(kind) = kind.filter(|_| message.starts_with("ERR_")) {
        return Error::Isolated { kind, message: message.to_owned() };
    }
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal={signal}"),
        (None, Some(code)) => format!("code={code}"),
        (None, None) => "without a code".to_owned(),
    };
    Refusal::new(ParquetFault::DecoderDied, format!("the process that decoded it died, {how}")).of(file)
}

/// How far the batches of a process were passed on.
enum Answered {
    All,
    Unwanted,
    Broken(arrow::error::ArrowError),
}

/// The process; killed when dropped.
struct Decoder {
    child: Child,
    /// Reads what it says on stderr.
    message: Option<JoinHandle<String>>,
}

impl Decoder {
    fn start(program: &Path, part: &Part) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(DECODE_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the job, which stops its processes itself.
        command.process_group(0);
        if let Some(timeout) = s3::RETRY_FOR.get()
            && std::env::var_os(s3::RETRY_TIMEOUT).is_none()
        {
            command.env(s3::RETRY_TIMEOUT, timeout.as_secs().to_string());
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let message = Some(std::thread::spawn(move || stderr.map(last_line).unwrap_or_default()));
        let stdin = child.stdin.take();
        let decoder = Self { child, message };
        if let Some(mut stdin) = stdin {
            // A process that died before it read says so by its status.
            let _ = stdin.write_all(serde_json::to_string(part)?.as_bytes());
        }
        Ok(decoder)
    }

    fn pass_on(&mut self, batches: &mpsc::Sender<Result<RecordBatch>>) -> Answered {
        let Some(stdout) = self.child.stdout.take() else { return Answered::All };
        let mut stdout = BufReader::new(stdout);
        // Row groups without a row have no batch, and an answer begins with the first one.
        if stdout.fill_buf().is_ok_and(<[u8]>::is_empty) {
            return Answered::All;
        }
        let mut reader = match StreamReader::try_new(stdout, None) {
            Ok(reader) => reader,
            Err(error) => return Answered::Broken(error),
        };
        for batch in &mut reader {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Answered::Broken(error),
            };
            if batches.blocking_send(Ok(batch)).is_err() {
                return Answered::Unwanted;
            }
        }
        Answered::All
    }

    /// Its status and its last words. It ends by itself when its output has been read, or when nobody reads it any more.
    fn end(mut self) -> std::io::Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        let message = self.message.take().and_then(|message| message.join().ok());
        Ok((status, message.unwrap_or_default()))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // Both fail when it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line of a text, of which the beginning is read at most; the rest goes nowhere, so that its writer does not wait.
fn last_line(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.by_ref().take(MESSAGE_BYTES).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    let text = String::from_utf8_lossy(&bytes);
    text.lines().last().unwrap_or_default().to_owned()
}

/// Decodes what `input` asks for and writes the batches to `output`; for the program of [`isolate_inputs`]. Limits the memory
/// and the processor time of the process first.
///
/// # Errors
/// What [`ParquetInput::stream`](crate::ParquetInput::stream) says. Whoever started the process expects the text of the error
/// as the last line on stderr, and its code.
pub async fn serve_decoding(input: impl Read, output: impl Write) -> Result<()> {
    let part: Part = serde_json::from_reader(input).map_err(malformed)?;
    let limit = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let limits = [
        (Resource::As, MEMORY_BYTES.saturating_add(part.file.size)),
        (Resource::Cpu, CPU_SECONDS.saturating_add(part.file.size >> 20)),
    ];
    for (resource, value) in limits {
        // A stricter limit that is there already stays.
        let inherited = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, limit(value.min(inherited)))
            .map_err(|error| bug(&format!("no limit can be set: {error}")))?;
    }
    let mut file = open_parquet(&Stores::from_env(), &part.file.input()?).await?.with_decoded_budget(part.budget);
    for column in &part.file.dictionaries {
        file = file.with_dictionary(*column)?;
    }
    let mut batches = file.stream_row_groups(&part.row_groups, &part.columns, part.batch_size).await?;
    let unwanted = |error: arrow::error::ArrowError| Error::Store {
        operation: "sending decoded batches",
        reason: error.to_string(),
        file: part.file.url.clone(),
        source: Some(Box::new(error)),
    };
    let mut output = Some(BufWriter::new(output));
    let mut writer = None;
    while let Some(batch) = batches.try_next().await? {
        if let Some(output) = output.take() {
            writer = Some(StreamWriter::try_new(output, &batch.schema()).map_err(unwanted)?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).map_err(unwanted)?;
        }
    }
    match writer {
        Some(mut writer) => writer.finish().and_then(|()| writer.flush()).map_err(unwanted),
        None => Ok(()),
    }
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Bug { reason: "what to decode is not said".to_owned(), source: Some(Box::new(error)) }
}

fn bug(reason: &str) -> Error {
    Error::Bug { reason: reason.to_owned(), source: None }
}
