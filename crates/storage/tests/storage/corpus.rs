//! The hostile files of apache/parquet-testing and apache/arrow-testing, where they are at hand.

use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use item_affinity_storage::{Location, ParquetInput, Result, Stores, list_parquet, open_parquet};

const FOLDER: &str = "ITEM_AFFINITY_PARQUET_TESTING";

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("README") {
            found.push(path);
        }
    }
}

async fn open(path: &Path) -> Result<ParquetInput> {
    let stores = Stores::in_memory();
    let listing = list_parquet(&stores, &Location::parse(path.to_str().unwrap()).unwrap()).await?;
    open_parquet(&stores, &listing.files[0]).await
}

async fn rows(input: ParquetInput) -> Result<usize> {
    let columns: Vec<usize> = (0..input.schema().fields().len()).collect();
    let batches = input.stream(&columns, 1_024).await?;
    batches.try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows()) }).await
}

#[tokio::test]
async fn corpus_files_give_rows_or_an_error() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        println!("skipped 149 corpus files: {FOLDER} is not set");
        return;
    };
    let mut found = Vec::new();
    files(Path::new(&folder), &mut found);
    found.retain(|path| path.extension().is_none_or(|e| e != "txt" && e != "md"));
    found.sort();
    let (mut good, mut bad) = (0, 0);
    let mut controls = 0;
    for path in &found {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let opened = open(path).await;
        let passed_preflight = opened.is_ok();
        let result = match opened {
            Ok(input) => rows(input).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(rows) => {
                println!("{name}: {rows} rows");
                good += 1;
            }
            Err(error) => {
                println!("{name}: {error}");
                assert!(error.to_string().starts_with("ERR_"), "{name}: {error}");
                bad += 1;
            }
        }
        match name.as_str() {
            "alltypes-java.parquet" => assert_eq!(result.as_ref().ok(), Some(&2), "{result:?}"),
            // Written with a wrong compression flag that parquet-rs, unlike Arrow C++, does not see through.
            "ARROW-17100.parquet" => assert!(passed_preflight, "{result:?}"),
            "ARROW-GH-43605.parquet" => assert_eq!(result.as_ref().ok(), Some(&21_186), "{result:?}"),
            _ => continue,
        }
        controls += 1;
    }
    println!("corpus: {good} gave rows, {bad} an error, of {}", found.len());
    assert_eq!(controls, 3);
    assert!(bad > good);
}
