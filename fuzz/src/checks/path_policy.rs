//! Locations, and which of them SQL may reach.

use std::path::PathBuf;
use std::sync::LazyLock;

use item_affinity_storage::{Location, Roots};

/// A folder with a root in it, a file beside the root, and links from the root to it.
struct Disk {
    _folder: tempfile::TempDir,
    root: PathBuf,
    roots: Roots,
}

static DISK: LazyLock<Disk> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().canonicalize().expect("it is there");
    let root = base.join("root");
    std::fs::create_dir_all(root.join("deep")).expect("a folder");
    std::fs::create_dir_all(base.join("root-2")).expect("a folder");
    for name in ["root/in", "root/deep/in", "root-2/out", "out"] {
        std::fs::write(base.join(name), name).expect("a file");
    }
    for (link, target) in [("file", "out"), ("folder", "root-2"), ("up", "."), ("nowhere", "none")] {
        std::os::unix::fs::symlink(base.join(target), root.join(link)).expect("a link");
    }
    let places = [Location::parse(&root.display().to_string()), Location::parse("s3://lake/in")];
    let roots = Roots::new(places.into_iter().map(|place| place.expect("a location")));
    Disk { _folder: folder, root, roots }
});

/// A text as a location, as it is and below the root: what is allowed lies in a root once it is opened.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let root = DISK.root.display();
    for text in
        [text.to_owned(), format!("{root}/{text}"), format!("file://{root}/{text}"), format!("s3://lake/{text}")]
    {
        let location = match Location::parse(&text) {
            Ok(location) => location,
            Err(error) => {
                super::told(error.kind(), &error);
                continue;
            }
        };
        assert_eq!(Location::parse(&location.to_string()).as_ref().ok(), Some(&location), "{location}");
        if let Err(error) = DISK.roots.check(&location) {
            super::told(error.kind(), &error);
            continue;
        }
        match location.local_path() {
            Some(path) => {
                let real = path.canonicalize();
                assert!(real.as_ref().map_or(true, |real| real.starts_with(&DISK.root)), "{location} is {real:?}");
            }
            None => {
                let key = location.path().as_ref();
                assert!(location.store_url().as_str() == "s3://lake/", "{location}");
                assert!(key == "in" || key.starts_with("in/") && !key.contains("/../"), "{location}");
            }
        }
    }
    // The same text as a name in a commit.
    let base = super::location("solution");
    if let Ok(child) = base.child(text) {
        assert!(base.contains(&child), "{child}");
    }
}
