//! P8: whatever was changed since a commit is found, and named.

use item_affinity_storage::{Artifact, Error, Verified, Versions};
use rand::{RngExt, SeedableRng};

use crate::commits::{Place, commit_name, commit_one, disk, memory, s3};

async fn three(place: &Place) -> Versions {
    let versions = place.versions(Artifact::Segments);
    for job in ["a", "b", "c"] {
        commit_one(&versions, job).await;
    }
    versions
}

fn texts(found: &Verified) -> Vec<String> {
    found.faults.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn p8_untouched_versions_are_whole_on_every_store() {
    for place in [Some(memory()), Some(disk()), s3()].into_iter().flatten() {
        let versions = three(&place).await;
        let newest = versions.verify(None, false).await.unwrap();
        assert_eq!((newest.versions, newest.files, newest.bytes), (vec![3], 1, 9));
        assert_eq!(newest.chain, [1, 2, 3]);
        assert!(newest.faults.is_empty());
        let second = versions.verify(Some(2), false).await.unwrap();
        assert_eq!((second.versions, second.files), (vec![2], 1));
        let all = versions.verify(None, true).await.unwrap();
        assert_eq!((all.versions, all.files, all.bytes), (vec![1, 2, 3], 3, 27));
        for missing in
            [versions.verify(Some(9), false).await, place.versions(Artifact::Segments).verify(Some(0), false).await]
        {
            assert!(matches!(missing, Err(Error::NoVersion { .. })), "{missing:?}");
        }
    }
    let nothing = memory().versions(Artifact::Segments).verify(None, false).await.unwrap_err();
    assert!(matches!(nothing, Error::NoVersion { .. }), "{nothing}");
}

#[tokio::test]
async fn p8_all_damage_is_found_and_named() {
    for place in [memory(), disk()] {
        let versions = three(&place).await;
        let mut files = Vec::new();
        for number in 1..=3 {
            files.push(versions.read(number).await.unwrap().files.remove(0).path);
        }
        place.overwrite(&files[0], "data of A").await;
        place.overwrite(&files[1], "data").await;
        place.remove(&files[2]).await;
        let found = texts(&versions.verify(None, true).await.unwrap());
        assert_eq!(found.len(), 3, "{found:?}");
        for (text, (file, what)) in
            found.iter().zip(files.iter().zip(["sha256 differs", "4 bytes instead of 9", "missing"]))
        {
            assert!(text.contains(file) && text.contains(what), "{text}");
        }
        assert_eq!(texts(&versions.verify(None, false).await.unwrap()).len(), 1);

        let text = String::from_utf8(place.bytes(&commit_name(1)).await.to_vec()).unwrap();
        place.overwrite(&commit_name(1), text.replace("\"users\": 3", "\"users\": 4")).await;
        place.overwrite(&commit_name(3), "{").await;
        let found = texts(&versions.verify(Some(1), false).await.unwrap());
        let expected = ["sha256 differs", "commit 1 was changed after commit 2 was made", "the commit is damaged"];
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().zip(expected).all(|(text, what)| text.contains(what)), "{found:?}");
    }
}

/// Any bit of a data file or of a commit but the last, which nothing vouches for; of the last, bits of a file's record.
#[tokio::test]
async fn p8_any_flipped_bit_is_found() {
    let seed: u64 = rand::random();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let place = memory();
    let versions = three(&place).await;
    let mut names = vec![commit_name(1), commit_name(2)];
    for number in 1..=3 {
        names.push(versions.read(number).await.unwrap().files.remove(0).path);
    }
    let mut found = 0;
    for _ in 0..300 {
        let name = &names[random.random_range(0..names.len())];
        let good = place.bytes(name).await;
        let mut bad = good.to_vec();
        let bit = random.random_range(0..bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        place.overwrite(name, bad).await;
        let result = versions.verify(None, true).await.unwrap();
        assert!(!result.faults.is_empty(), "seed {seed}: bit {bit} of {name}");
        found += 1;
        place.overwrite(name, good).await;
    }
    assert!(versions.verify(None, true).await.unwrap().faults.is_empty());
    println!("bit flips found: {found} of 300 in commits and data files (seed {seed})");
}
