//! Temporary files of queries that do not fit into memory: without names, and bounded.
//!
//! A file without a name lies in no folder. Nobody else can open it, and it is gone when the process is, however that ends.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use futures::stream::{self, Stream};
use item_affinity_storage::{Bytes, Error};

/// Bytes of temporary files that a session may hold at once, unless said; as in DataFusion.
const DEFAULT_LIMIT: u64 = 100 << 30;
/// Bytes read at a time.
const CHUNK: usize = 128 << 10;

/// Temporary files for the runtime of a session: without names, on the disk of `folder`, of at most `limit` bytes together;
/// none: 100 GiB. [`session`](crate::session()) has them already.
#[must_use]
pub fn unnamed_files(folder: PathBuf, limit: Option<u64>) -> DiskManagerBuilder {
    let files = UnnamedFiles::new(folder, limit.unwrap_or(DEFAULT_LIMIT));
    DiskManagerBuilder::default().with_temp_file_factory(Arc::new(files))
}

/// Makes the temporary files of a session.
struct UnnamedFiles {
    space: Arc<Space>,
}

/// The space of all files of a session.
struct Space {
    /// The folder on whose disk they are.
    folder: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl UnnamedFiles {
    fn new(folder: PathBuf, limit: u64) -> Self {
        Self { space: Arc::new(Space { folder, limit, used: AtomicU64::new(0) }) }
    }

    fn file(&self) -> Result<Unnamed> {
        let file = tempfile::tempfile_in(&self.space.folder).map_err(|error| self.space.failed("make", &error))?;
        Ok(Unnamed { file: Arc::new(file), bytes: Arc::default(), space: Arc::clone(&self.space) })
    }
}

impl TempFileFactory for UnnamedFiles {
    fn create_temp_file(&self, _: &str) -> Result<Arc<dyn SpillFile>> {
        Ok(Arc::new(self.file()?))
    }
}

impl Space {
    /// Takes space for so many bytes.
    fn take(&self, bytes: u64) -> io::Result<()> {
        let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        taken.map(drop).map_err(|_| {
            io::Error::other(Error::TempLimit { limit: self.limit, folder: self.folder.display().to_string() })
        })
    }

    fn failed(&self, what: &str, error: &io::Error) -> io::Error {
        let folder = self.folder.display();
        let cure = "set TMPDIR, of an executor --work-dir, to a folder with room, or give the query more memory with \
                    --memory-limit";
        io::Error::new(error.kind(), format!("cannot {what} a temporary file: {error}; file={folder}; {cure}"))
    }
}

/// One file; its space is free again when nobody knows it any more.
struct Unnamed {
    file: Arc<File>,
    bytes: Arc<AtomicU64>,
    space: Arc<Space>,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl SpillFile for Unnamed {
    fn path(&self) -> Option<&Path> {
        None
    }

    fn size(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let from = (Arc::clone(&self.file), Arc::clone(&self.space), 0);
        Ok(Box::pin(stream::try_unfold(from, |(file, space, at)| async move {
            let reading = tokio::task::spawn_blocking(move || (read_at(&file, at), file));
            let (read, file) = reading.await.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let bytes = read.map_err(|error| space.failed("read", &error))?;
            let next = at + bytes.len() as u64;
            Ok((!bytes.is_empty()).then(|| (Bytes::from(bytes), (file, space, next))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let (file, bytes, space) = (Arc::clone(&self.file), Arc::clone(&self.bytes), Arc::clone(&self.space));
        Ok(Box::new(UnnamedWriter { file, bytes, space }))
    }
}

/// The next bytes; none at the end.
fn read_at(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read_at(&mut buffer, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => {
                buffer.truncate(read?);
                return Ok(buffer);
            }
        }
    }
}

/// Adds to the end of a file.
struct UnnamedWriter {
    file: Arc<File>,
    bytes: Arc<AtomicU64>,
    space: Arc<Space>,
}

impl Write for UnnamedWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = buffer.len() as u64;
        self.space.take(length)?;
        let end = self.bytes.fetch_add(length, Ordering::Relaxed);
        self.file.write_all_at(buffer, end).map_err(|error| self.space.failed("write", &error))?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for UnnamedWriter {
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use futures::TryStreamExt;

    use super::*;
    use crate::error_kind;

    fn files(limit: u64) -> UnnamedFiles {
        UnnamedFiles::new(std::env::temp_dir(), limit)
    }

    fn read(file: &dyn SpillFile) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let chunks: Vec<Bytes> = runtime.block_on(file.read_stream().unwrap().try_collect()).unwrap();
        chunks.concat()
    }

    #[test]
    fn what_was_written_is_read_by_each_reader_from_the_start() {
        let file = files(1 << 20).file().unwrap();
        assert!(read(&file).is_empty());
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = file.open_writer().unwrap();
        bytes.chunks(7_000).for_each(|part| writer.write_all(part).unwrap());
        writer.finish().unwrap();
        assert_eq!(file.size(), Some(300_000));
        assert!(read(&file) == bytes && read(&file) == bytes);
    }

    #[test]
    fn p26_files_of_a_session_are_bounded_together_and_give_their_space_back() {
        let bounded = files(1_000);
        let (one, other) = (bounded.file().unwrap(), bounded.file().unwrap());
        one.open_writer().unwrap().write_all(&[1; 600]).unwrap();
        let error = other.open_writer().unwrap().write_all(&[2; 401]).unwrap_err();
        let error = DataFusionError::from(error);
        assert_eq!(error_kind(&error).exit_code(), 8);
        assert!(crate::error_message(&error).starts_with("ERR_TEMP_LIMIT: "), "{error}");
        assert_eq!((other.size(), read(&one)), (Some(0), vec![1; 600]));
        drop(one);
        other.open_writer().unwrap().write_all(&[2; 1_000]).unwrap();
        assert_eq!(read(&other), [2; 1_000]);
        // A limit of nearly all numbers is no overflow.
        assert!(files(u64::MAX).file().unwrap().open_writer().unwrap().write_all(&[3; 10]).is_ok());
    }

    #[test]
    fn p26_files_of_a_runtime_lie_in_the_folder_that_is_said_and_have_no_names() {
        let folder = tempfile::tempdir().unwrap();
        let of = |folder: &Path| {
            let builder = RuntimeEnvBuilder::new().with_disk_manager_builder(unnamed_files(folder.to_owned(), Some(4)));
            builder.build_arc().unwrap().disk_manager.create_tmp_file("a test")
        };
        let file = of(folder.path()).unwrap();
        file.open_writer().unwrap().write_all(&[1; 4]).unwrap();
        assert_eq!((file.path(), read(file.as_ref())), (None, vec![1; 4]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(file.open_writer().unwrap().write_all(&[1]).is_err());
        let missing = folder.path().join("missing");
        let error = of(&missing).err().unwrap().to_string();
        assert!(error.contains(&missing.display().to_string()) && error.contains("--work-dir"), "{error}");
    }
}
