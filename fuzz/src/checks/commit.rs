//! Commits that somebody else wrote, and the names in them.

use item_affinity_storage::{Artifact, Bytes, Versions};

/// Bytes as the commit of version 1: refused, or a version all of whose names lie below its location.
pub fn check(data: &[u8]) {
    super::block_on(async {
        for artifact in [Artifact::SolutionVersion, Artifact::Segments] {
            let stores = super::stores_with("out/_item_affinity/commits/00000000000000000001.json", data).await;
            let base = super::location("out");
            let versions = Versions::new(&stores, base.clone(), artifact).expect("memory needs no settings");
            let commit = match versions.latest().await {
                Ok(commit) => commit.expect("a commit is there"),
                Err(error) => {
                    super::told(error.kind(), &error);
                    continue;
                }
            };
            assert_eq!(commit.version, 1);
            for entry in &commit.files {
                let file = versions.file_location(entry).expect("names were checked");
                assert!(base.contains(&file), "{file}");
                let error = versions.check_file(entry).await.expect_err("there is no other file");
                super::told(error.kind(), &error);
            }
            assert_eq!(versions.find_job(&commit.body.job_key).await.ok().flatten().as_ref(), Some(&commit));
        }
        // A name that a run takes lies in its folder.
        if let Ok(name) = std::str::from_utf8(data)
            && name.len() <= 1_024
        {
            let stores = item_affinity_storage::Stores::in_memory();
            let base = super::location("own");
            let versions = Versions::new(&stores, base.clone(), Artifact::Segments).expect("memory needs no settings");
            let run = versions.begin().await.expect("an empty location");
            let folder = base.child(&format!("data/run={}", run.run_id)).expect("a name of ours");
            if let Ok(entry) = run.put(name, Bytes::from_static(b"x"), None).await {
                assert!(folder.contains(&base.child(&entry.path).expect("a name that was taken")), "{}", entry.path);
            }
            run.abandon().await;
        }
    });
}
