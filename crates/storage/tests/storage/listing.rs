//! Which objects are input.

use item_affinity_storage::{Error, ErrorKind, Listing, Location, ParquetFault, Result, Stores, list_parquet};
use object_store::{ObjectStoreExt, PutPayload};

async fn put(stores: &Stores, base: &Location, names: &[&str]) {
    let store = stores.store(base).unwrap();
    for name in names {
        let path = base.child(name).unwrap().path().clone();
        store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
    }
}

fn names(listing: &Listing, base: &Location) -> Vec<String> {
    let base = format!("{}/", base.path());
    listing.files.iter().map(|file| file.location.path().as_ref().strip_prefix(&base).unwrap().to_owned()).collect()
}

async fn list(stores: &Stores, base: &Location, below: &str) -> Result<Listing> {
    let text = format!("{}{}{below}", base.to_string().trim_end_matches('/'), if below.is_empty() { "" } else { "/" });
    list_parquet(stores, &Location::parse(&text).unwrap()).await
}

/// The same objects in memory and on disk.
async fn both(laws: impl AsyncFn(&Stores, &Location)) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("in");
    for text in ["memory:///deep/in", root.to_str().unwrap()] {
        laws(&Stores::in_memory(), &Location::parse(text).unwrap()).await;
    }
}

#[tokio::test]
async fn folder_gives_data_files_sorted_and_counts_the_rest() {
    both(async |stores, base| {
        let data = ["a.parquet", "b/c.PARQ", "b/part-00000-x", "z.pq", "_day=1/x.parquet"];
        let rest = [
            "_SUCCESS",
            ".a.parquet.crc",
            "_temporary/0/x.parquet",
            "b/.hidden.parquet",
            "b/_meta/x.parquet",
            "readme.md",
            "x.csv",
        ];
        put(stores, base, &data).await;
        put(stores, base, &rest).await;
        let listing = list(stores, base, "").await.unwrap();
        assert_eq!(names(&listing, base), ["_day=1/x.parquet", "a.parquet", "b/c.PARQ", "b/part-00000-x", "z.pq"]);
        assert_eq!(listing.ignored, rest.len());
        assert!(listing.files.iter().all(|file| file.meta.e_tag.is_some() && file.meta.size == 1));
    })
    .await;
}

#[tokio::test]
async fn named_file_is_taken_whatever_its_name() {
    both(async |stores, base| {
        let odd = ["data.csv", "_x", "50% off #1 ünï?.parquet", "[a]*.parquet", "b.parquet"];
        put(stores, base, &odd).await;
        for name in odd {
            let location = base.child(name).unwrap();
            let listing = list_parquet(stores, &location).await.unwrap();
            assert_eq!(names(&listing, base), [name]);
            assert_eq!(listing.files[0].location, location);
            assert!(listing.files[0].partitions.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn globs_match_files_and_folders() {
    both(async |stores, base| {
        put(
            stores,
            base,
            &["d1/a.parquet", "d1/b.parquet", "d1/b.txt", "d2/deep/a.parquet", "e/a.parquet", "_h/a.parquet"],
        )
        .await;
        for (glob, expected) in [
            ("d1/*", &["d1/a.parquet", "d1/b.parquet"][..]),
            ("d*", &["d1/a.parquet", "d1/b.parquet", "d2/deep/a.parquet"]),
            ("d[1]/[ab].*", &["d1/a.parquet", "d1/b.parquet", "d1/b.txt"]),
            ("**/a.parquet", &["d1/a.parquet", "d2/deep/a.parquet", "e/a.parquet"]),
            ("*/a.parquet", &["d1/a.parquet", "e/a.parquet"]),
        ] {
            // `[` and `*` stand in the path of a location as they are.
            let listing = list_parquet(stores, &base.child(glob).unwrap()).await.unwrap();
            assert_eq!(names(&listing, base), expected, "{glob}");
        }
        let error = list(stores, base, "nothing*").await.unwrap_err();
        assert!(matches!(error, Error::NoInput { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn hive_partitions_are_decoded_and_the_default_one_is_null() {
    both(async |stores, base| {
        put(stores, base, &["year=2024/city=S%C3%A3o%2FP/a.parquet", "year=__HIVE_DEFAULT_PARTITION__/b.parquet"])
            .await;
        let listing = list(stores, base, "").await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(listing.files[0].partitions, [("year".into(), some("2024")), ("city".into(), some("São/P"))]);
        assert_eq!(listing.files[1].partitions, [("year".into(), None)]);
    })
    .await;
}

#[tokio::test]
async fn empty_data_object_is_refused() {
    both(async |stores, base| {
        put(stores, base, &["good.parquet"]).await;
        let store = stores.store(base).unwrap();
        store.put(base.child("part-1.parquet").unwrap().path(), PutPayload::new()).await.unwrap();
        for below in ["", "part-1.parquet", "*.parquet"] {
            let location = if below.is_empty() { base.clone() } else { base.child(below).unwrap() };
            let error = list_parquet(stores, &location).await.unwrap_err();
            assert!(matches!(error, Error::Parquet { fault: ParquetFault::EmptyObject, .. }), "{error}");
            assert!(error.to_string().contains("part-1.parquet"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn marks_of_folders_are_no_data() {
    let stores = Stores::in_memory();
    let base = Location::parse("memory:///in").unwrap();
    put(&stores, &base, &["sub/a.parquet"]).await;
    let store = stores.store(&base).unwrap();
    for mark in ["in", "in/sub", "in/empty", "in/sub_$folder$"] {
        store.put(&mark.into(), PutPayload::new()).await.unwrap();
    }
    let listing = list(&stores, &base, "").await;
    // An object of the name of the folder itself is a file that is named, so ask for the folder.
    assert!(listing.is_err());
    let listing = list_parquet(&stores, &Location::parse("memory:///in/").unwrap()).await.unwrap();
    assert_eq!(names(&listing, &base), ["sub/a.parquet"]);
    store.put(&"in/part-00000".into(), PutPayload::new()).await.unwrap();
    assert!(list_parquet(&stores, &Location::parse("memory:///in/").unwrap()).await.is_err());
}

#[tokio::test]
async fn nothing_to_read_says_what_was_looked_for() {
    both(async |stores, base| {
        let error = list(stores, base, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.to_string().starts_with("ERR_NO_INPUT: "), "{error}");
        assert!(error.to_string().contains(&base.to_string()), "{error}");
        put(stores, base, &["readme.md", "_SUCCESS"]).await;
        let error = list(stores, base, "").await.unwrap_err().to_string();
        assert!(error.contains("no Parquet file among 2 other and hidden ones"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn repeated_objects_of_a_listing_are_read_once() {
    use crate::fault_store::{FaultStore, Plan};
    let store = FaultStore::new(Plan::default());
    let stores = Stores::in_memory();
    stores.register(&"memory:///".parse().unwrap(), std::sync::Arc::new(store));
    let base = Location::parse("memory:///in").unwrap();
    put(&stores, &base, &["b.parquet", "a.parquet"]).await;
    assert_eq!(names(&list(&stores, &base, "").await.unwrap(), &base), ["a.parquet", "b.parquet"]);
}

#[cfg(unix)]
#[tokio::test]
async fn special_files_and_broken_links_are_errors_that_do_not_block() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let stores = Stores::in_memory();
    std::fs::write(root.join("good.parquet"), "x").unwrap();
    symlink(root.join("good.parquet"), root.join("link.parquet")).unwrap();
    assert_eq!(list(&stores, &Location::parse(root.to_str().unwrap()).unwrap(), "").await.unwrap().files.len(), 2);

    let fifo =
        |path: &std::path::Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    type Make<'a> = &'a dyn Fn(&std::path::Path);
    let cases: [(&str, Make<'_>); 4] = [
        ("a pipe", &fifo),
        ("a link that leads nowhere", &|path| symlink("/no/such/file", path).unwrap()),
        ("a link that leads nowhere or to itself", &|path| symlink(path, path).unwrap()),
        ("a device", &|path| symlink("/dev/zero", path).unwrap()),
    ];
    for (what, make) in cases {
        let folder = tempfile::tempdir_in(&root).unwrap();
        let path = folder.path().join("x.parquet");
        make(&path);
        for location in [path.to_str().unwrap(), folder.path().to_str().unwrap()] {
            let error = list_parquet(&stores, &Location::parse(location).unwrap()).await.unwrap_err();
            assert!(matches!(error, Error::InputFile { .. }), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
    let looped = tempfile::tempdir_in(&root).unwrap();
    symlink(looped.path(), looped.path().join("again")).unwrap();
    let error = list_parquet(&stores, &Location::parse(looped.path().to_str().unwrap()).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("a loop of links"), "{error}");
}
