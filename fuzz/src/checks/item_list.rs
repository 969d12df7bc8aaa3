//! Lists of items: Amazon Personalize's JSON Lines, and CSV.

use item_affinity_datafusion::{ItemList, error_kind, error_message};

/// Bytes as a list, under names that say JSON, CSV and nothing.
pub fn check(data: &[u8]) {
    for name in ["items.json", "items.csv", "items"] {
        let read = super::block_on(async {
            let stores = super::stores_with(name, data).await;
            ItemList::read_files(&stores, &super::location(name)).await
        });
        match read {
            Ok(files) => {
                assert!(files.iter().all(|file| !file.list.entries.is_empty()), "a list without entries");
                for entry in files.iter().flat_map(|file| &file.list.entries) {
                    match &entry.item {
                        Ok(id) => assert!(!id.trim().is_empty(), "an id of blanks"),
                        // It says in which line, and repeats nothing of it.
                        Err(error) => assert!(error.message.contains("line="), "{error}"),
                    }
                }
            }
            Err(error) => super::told(error_kind(&error), &error_message(&error)),
        }
    }
}
