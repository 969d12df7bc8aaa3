//! Every damage of a solution version is an error that names the file.

use std::collections::BTreeMap;

use bytes::Bytes;
use item_affinity_solution::{Error, Result, SolutionVersion, versions};
use item_affinity_storage::{Artifact, CommitBody, ErrorKind, Location, Stores, Versions};

use crate::planted::{bytes, job, open, put, small_data, trained};

/// Reads all that a version has.
async fn read_all(stores: &Stores, reference: &str) -> Result<SolutionVersion> {
    let version = open(stores, reference).await?;
    for part in &version.user_parts {
        version.read_user_part(stores, part).await?;
    }
    version.user_states(stores).await?;
    let items: Vec<u32> = (0u32..).take(version.items.ids.len()).collect();
    version.item_history(stores, &items).await?;
    Ok(version)
}

/// The data files of the newest version at `memory:///affinity`, by location, with their paths in the commit.
async fn data_files(stores: &Stores) -> Vec<(String, String)> {
    let location = Location::parse("memory:///affinity").unwrap();
    let versions = Versions::new(stores, location, Artifact::SolutionVersion).unwrap();
    let commit = versions.latest().await.unwrap().unwrap();
    commit.files.iter().map(|entry| (versions.file_location(entry).unwrap().to_string(), entry.path.clone())).collect()
}

#[track_caller]
fn assert_damaged(outcome: Result<SolutionVersion>, path: &str, what: &str) {
    let error = outcome.err().unwrap_or_else(|| panic!("{what} in {path} was not found"));
    let text = error.to_string();
    let code = text.starts_with("ERR_SOLUTION_DAMAGED") || text.starts_with("ERR_COMMIT_INCOMPLETE");
    assert!(code, "{what}: {text}");
    assert!(text.contains(path), "{what}: {text}");
    assert!(text.ends_with("train again"), "{what}: {text}");
    assert_eq!(error.kind(), ErrorKind::BadInput, "{text}");
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_found_and_the_file_is_named() {
    let stores = small_data().await;
    trained(&stores).await;
    for (file, path) in data_files(&stores).await {
        let sound = bytes(&stores, &Location::parse(&file).unwrap()).await;
        // A prime step reaches every kind of place: magic bytes, page headers, ids, factors, footer.
        for at in (0..sound.len()).step_by(sound.len().div_ceil(60) | 1).chain([sound.len() - 1]) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            put(&stores, &file, damaged).await;
            assert_damaged(read_all(&stores, "memory:///affinity").await, &path, &format!("byte {at}"));
        }
        put(&stores, &file, sound).await;
    }
    read_all(&stores, "memory:///affinity").await.unwrap();
}

#[tokio::test]
async fn a_file_cut_lengthened_or_removed_is_found_at_open_and_named() {
    let stores = small_data().await;
    trained(&stores).await;
    for (file, path) in data_files(&stores).await {
        let sound = bytes(&stores, &Location::parse(&file).unwrap()).await;
        for length in [0, 1, sound.len() / 2, sound.len() - 1, sound.len() + 1] {
            let mut changed = sound.clone();
            changed.resize(length, 0);
            put(&stores, &file, changed).await;
            assert_damaged(open(&stores, "memory:///affinity").await, &path, &format!("{length} bytes"));
        }
        let location = Location::parse(&file).unwrap();
        object_store::ObjectStoreExt::delete(&*stores.store(&location).unwrap(), location.path()).await.unwrap();
        assert_damaged(open(&stores, "memory:///affinity").await, &path, "removal");
        put(&stores, &file, sound).await;
    }
    read_all(&stores, "memory:///affinity").await.unwrap();
}

#[tokio::test]
async fn damage_of_a_later_version_points_to_the_earlier_one() {
    let stores = small_data().await;
    trained(&stores).await;
    job(&stores).hidden_dimension(40).run().await.unwrap();
    let (file, path) = data_files(&stores).await.into_iter().find(|(_, path)| path.ends_with("model.json")).unwrap();
    let mut card = bytes(&stores, &Location::parse(&file).unwrap()).await;
    card[20] ^= 1;
    put(&stores, &file, card).await;
    let text = open(&stores, "memory:///affinity").await.unwrap_err().to_string();
    assert!(text.contains("memory:///affinity@1"), "{text}");
    assert!(text.contains(&path), "{text}");
    read_all(&stores, "memory:///affinity@1").await.unwrap();
}

#[tokio::test]
async fn training_again_repairs_a_damaged_version_of_the_same_job() {
    let stores = small_data().await;
    trained(&stores).await;
    let (file, _) = data_files(&stores).await.into_iter().find(|(_, path)| path.contains("/users/")).unwrap();
    put(&stores, &file, vec![0; 100]).await;
    let again = trained(&stores).await;
    assert_eq!((again.version, again.already_done), (2, false));
    read_all(&stores, "memory:///affinity").await.unwrap();
}

/// A version with changed files, committed by all rules: what somebody else's program could have written.
pub(crate) async fn forge(change: impl FnOnce(&mut BTreeMap<String, (Bytes, Option<u64>)>)) -> Stores {
    let stores = small_data().await;
    trained(&stores).await;
    let location = Location::parse("memory:///affinity").unwrap();
    let versions = Versions::new(&stores, location, Artifact::SolutionVersion).unwrap();
    let commit = versions.latest().await.unwrap().unwrap();
    let folder = format!("versions/{}/", commit.run_id);
    let mut files = BTreeMap::new();
    for entry in &commit.files {
        let name = entry.path.strip_prefix(&folder).unwrap().to_owned();
        files.insert(name, (versions.read_file(entry).await.unwrap(), entry.rows));
    }
    change(&mut files);
    let run = versions.begin().await.unwrap();
    for (name, (bytes, rows)) in files {
        run.put(&name, bytes, rows).await.unwrap();
    }
    run.commit(CommitBody { job_key: "forged".to_owned(), ..commit.body }).await.unwrap();
    stores
}

async fn forged_card(change: impl FnOnce(&mut serde_json::Value)) -> Result<SolutionVersion> {
    let stores = forge(|files| {
        let (bytes, _) = files.get_mut("model.json").unwrap();
        let mut card = serde_json::from_slice(bytes).unwrap();
        change(&mut card);
        *bytes = serde_json::to_vec(&card).unwrap().into();
    })
    .await;
    read_all(&stores, "memory:///affinity").await
}

#[tokio::test]
async fn a_newer_major_format_is_refused_by_its_number() {
    let error = forged_card(|card| card["format_version"] = "2.0".into()).await.unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with("ERR_SOLUTION_FORMAT: made by format 2.0, this program reads 1.x; file=versions/"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::BadInput);
}

#[tokio::test]
async fn a_newer_major_format_is_refused_whatever_else_it_holds() {
    let stores = forge(|files| {
        let card = br#"{"format": "item-affinity-solution", "format_version": "3.1", "recipe": "another"}"#;
        files.insert("model.json".to_owned(), (Bytes::from_static(card), None));
    })
    .await;
    let text = open(&stores, "memory:///affinity").await.unwrap_err().to_string();
    assert!(text.starts_with("ERR_SOLUTION_FORMAT: made by format 3.1"), "{text}");
}

#[tokio::test]
async fn unknown_fields_and_settings_of_a_newer_minor_format_are_passed_over() {
    let version = forged_card(|card| {
        card["format_version"] = "1.7".into();
        card["horizon_days"] = 28.into();
        card["recipe"]["side_information"] = true.into();
    });
    assert_eq!(version.await.unwrap().model.format_version, "1.7");
}

#[tokio::test]
async fn a_card_that_contradicts_the_files_is_damage() {
    const DAMAGED: &str = "ERR_SOLUTION_DAMAGED: ";
    // Under a right checksum, digests of other ids are a card of another solution.
    const FOREIGN: &str = "ERR_SOLUTION_FOREIGN: ";
    let cases: [(&str, serde_json::Value, &str); 6] = [
        ("/users", 241.into(), DAMAGED),
        ("/items", u64::MAX.into(), DAMAGED),
        ("/recipe/hidden_dimension", 64.into(), DAMAGED),
        ("/item_ids_sha256", "00".into(), FOREIGN),
        ("/user_ids_sha256", "00".into(), FOREIGN),
        ("/format", "pickle".into(), DAMAGED),
    ];
    for (field, value, code) in cases {
        let outcome = forged_card(|card| *card.pointer_mut(field).unwrap() = value).await;
        let text = outcome.err().unwrap_or_else(|| panic!("{field} was not found")).to_string();
        assert!(text.starts_with(code), "{field}: {text}");
        assert!(text.contains("file=versions/"), "{field}: {text}");
    }
}

#[tokio::test]
async fn an_impossible_recipe_is_damage() {
    let outcome = forged_card(|card| card["recipe"]["hidden_dimension"] = 0.into()).await;
    let text = outcome.unwrap_err().to_string();
    assert!(text.starts_with("ERR_SOLUTION_DAMAGED: has an impossible recipe"), "{text}");
}

#[tokio::test]
async fn a_model_card_over_the_limit_is_refused_unread() {
    let stores = forge(|files| {
        files.insert("model.json".to_owned(), (vec![b' '; (64 << 20) + 1].into(), None));
    })
    .await;
    assert_damaged(open(&stores, "memory:///affinity").await, "model.json", "64 MiB and a byte");
}

#[tokio::test]
async fn another_file_in_place_of_a_part_is_refused_by_its_magic() {
    for (name, magic) in
        [("users/part-00000.parquet", &b"PK\x03\x04"[..]), ("items/part-00000.parquet", b"\x80\x04\x95")]
    {
        let stores = forge(|files| {
            let (bytes, _) = files.get_mut(name).unwrap();
            let mut other = bytes.to_vec();
            other[..magic.len()].copy_from_slice(magic);
            *bytes = other.into();
        })
        .await;
        let text = read_all(&stores, "memory:///affinity").await.unwrap_err().to_string();
        assert!(text.starts_with("ERR_SOLUTION_DAMAGED: ERR_NOT_PARQUET"), "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn users_in_place_of_items_are_refused() {
    let stores = forge(|files| {
        let users = files["users/part-00000.parquet"].0.clone();
        files.get_mut("items/part-00000.parquet").unwrap().0 = users;
    })
    .await;
    assert_damaged(open(&stores, "memory:///affinity").await, "items/part-00000.parquet", "a part of users");
}

#[tokio::test]
async fn an_unknown_version_is_named_with_those_that_exist() {
    let stores = small_data().await;
    trained(&stores).await;
    let error = open(&stores, "memory:///affinity@9").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains('9') && text.contains("memory:///affinity") && text.contains('1'), "{text}");
    assert_eq!(error.kind(), ErrorKind::BadInput);
}

#[tokio::test]
async fn a_location_without_a_solution_says_so() {
    let stores = small_data().await;
    for location in ["memory:///nothing", "memory:///events/"] {
        let error = open(&stores, location).await.unwrap_err();
        assert!(error.to_string().contains(location.trim_end_matches('/')), "{error}");
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        let location = Location::parse(location).unwrap();
        assert_eq!(versions(&stores, &location).await.unwrap_err().kind(), ErrorKind::BadInput);
    }
}

#[tokio::test]
async fn segments_are_no_solution() {
    let stores = Stores::in_memory();
    let location = Location::parse("memory:///segments").unwrap();
    let segments = Versions::new(&stores, location.clone(), Artifact::Segments).unwrap();
    let run = segments.begin().await.unwrap();
    run.put("part-00000.parquet", Bytes::from_static(b"rows"), Some(1)).await.unwrap();
    run.commit(CommitBody::default()).await.unwrap();
    for error in
        [open(&stores, "memory:///segments").await.unwrap_err(), versions(&stores, &location).await.unwrap_err()]
    {
        let text = error.to_string();
        assert!(text.contains("segments, not solution versions") && text.contains("memory:///segments"), "{text}");
        assert_eq!(error.kind(), ErrorKind::BadInput);
    }
}

#[tokio::test]
async fn a_commit_without_a_model_card_is_damage() {
    let stores = forge(|files| drop(files.remove("model.json"))).await;
    let text = open(&stores, "memory:///affinity").await.unwrap_err().to_string();
    assert!(text.starts_with("ERR_SOLUTION_DAMAGED: the commit names no model.json; file=_item_affinity/"), "{text}");
    assert!(text.ends_with("use an earlier version (memory:///affinity@1) or train again"), "{text}");
}
