//! B82 to B88: solution versions and commits.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::ArrayRef;
use serde_json::{Value, json};

use super::catalogue::{Case, Row, row};
use super::{good, replaced, texts, write};
use crate::common::{data, files_below, solution, succeed};

pub(super) const ROWS: &[Row] = &[
    row(82, "a part that is cut, flipped, longer, or another file", |case| {
        let copy = copied(case);
        for part in parts(&copy) {
            let path = copy.join(&part);
            let whole = std::fs::read(&path).unwrap();
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            let mut damaged = vec![whole[..whole.len() / 2].to_vec(), [&whole[..], b"more"].concat(), Vec::new()];
            for place in [0, 5, whole.len() / 2, whole.len() - 9, whole.len() - 6, whole.len() - 1] {
                let mut flipped = whole.clone();
                flipped[place] ^= 0x40;
                damaged.push(flipped);
            }
            for bytes in damaged {
                std::fs::write(&path, bytes).unwrap();
                reads(case, &copy, &name, &["ERR_SOLUTION_DAMAGED", &name]);
            }
            std::fs::write(&path, whole).unwrap();
        }
        works(case, &copy);
    }),
    row(83, "a part of another version, rows in another order", |case| {
        // Whatever the rows of a part are: its SHA-256 is that of the commit, or it is not read.
        let copy = copied(case);
        let users = parts(&copy).into_iter().find(|part| part.parent().unwrap().ends_with("users")).unwrap();
        let path = copy.join(&users).display().to_string();
        let other = case.path("other.parquet");
        let query = format!(
            "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{path}'; SELECT * FROM u ORDER BY user_id DESC"
        );
        succeed(["sql", "--format", "parquet", "--output", &other, "-c", &query]);
        std::fs::copy(&other, &path).unwrap();
        asks(case, &copy, &["ERR_SOLUTION_DAMAGED", "part-00000.parquet"]);
    }),
    row(84, "newer and older major version", |case| {
        for (format, says) in [("99.0", "99"), ("0.1", "0.1"), ("one", "one")] {
            let copy = copied(case);
            edit_commit(&copy, |commit| commit["format_version"] = json!(format));
            asks(case, &copy, &["ERR_", says]);
        }
    }),
    row(85, "version of other data, another solution in its place", |case| {
        let path = |name: &str| case.path(name);
        let [mine, other_items, other_users] = ["mine", "other_items", "other_users"].map(path);
        trained(case, &mine, good());
        trained(case, &other_items, replaced("item_id", texts(|n| Some(format!("goods-{}", (n * 7 + n / 50) % 50)))));
        trained(case, &other_users, replaced("user_id", texts(|n| Some(format!("guest-{}", n % 200)))));
        let segment = |more: &[&'static str]| {
            let mut arguments = vec!["segment", "--quiet", "--item", "item-3", "--output", "out", "--solution", "mine"];
            arguments.extend(more);
            arguments
        };
        case.works(&segment(&[]), &["committed version 1"]);

        // A model card of other data in a commit that is sound otherwise: the ids of the parts are not those of the model.
        let whole = kept(&mine);
        card_of(&other_items, &mine);
        case.refuses(3, &segment(&["--force"]), &["ERR_SOLUTION_FOREIGN: ", "other items", "model.json"]);
        kept_again(&mine, &whole);
        card_of(&other_users, &mine);
        let interactions = case.path("interactions.parquet");
        write(Path::new(&interactions), good());
        let refresh = ["refresh", "--quiet", "--force", "--solution", "mine", "--interactions", &interactions];
        case.refuses(3, &refresh, &["ERR_SOLUTION_FOREIGN: ", "other users", "model.json"]);
        kept_again(&mine, &whole);

        // A solution that went on is the same one, also for a version before; one elsewhere is a choice.
        case.works(&refresh, &["committed version 2"]);
        case.works(&segment(&[]), &["committed version 2"]);
        let pinned = ["segment", "--quiet", "--item", "item-3", "--output", "out", "--solution", "mine@1"];
        case.works(&[&pinned[..], &["--num-results", "7"]].concat(), &["committed version 3"]);
        let elsewhere = ["segment", "--item", "item-3", "--output", "out", "--solution", "other_users"];
        case.works(&elsewhere, &["committed version 4"]);
        case.works(&segment(&[]), &["committed version 5"]);

        // Another one in its place is not: it ends before that version, or has another one under its number.
        let theirs = kept(&other_users);
        kept_again(&mine, &theirs);
        case.refuses(
            3,
            &segment(&[]),
            &["ERR_SOLUTION_FOREIGN: ", "ends before version 2", "--allow-foreign-solution"],
        );
        case.works(&segment(&["--allow-foreign-solution"]), &["committed version 6"]);
        case.works(&segment(&["--num-results", "9"]), &["committed version 7"]);
        kept_again(&mine, &whole);
        case.refuses(3, &segment(&[]), &["ERR_SOLUTION_FOREIGN: ", "its version 1 is another one now"]);
    }),
    row(86, "pickle, zip or text in place of a part", |case| {
        let copy = copied(case);
        for bytes in
            [&b"\x80\x04\x95\x1a\0\0\0"[..], b"PK\x03\x04\x14\0\0\0\x08\0", b"{\"a\": 1}", b"\x10\0\0\0\0\0\0\0{}"]
        {
            let users = parts(&copy).into_iter().find(|part| part.parent().unwrap().ends_with("users")).unwrap();
            std::fs::write(copy.join(&users), bytes).unwrap();
            asks(case, &copy, &["ERR_SOLUTION_DAMAGED", "users"]);
        }
    }),
    row(87, "commit that names other places, or is no commit", |case| {
        type Edit = fn(&mut Value);
        let edits: [(&str, Edit); 8] = [
            ("../../x", |commit| commit["files"][0]["path"] = json!("../../x")),
            ("absolute path", |commit| commit["files"][0]["path"] = json!("/etc/passwd")),
            ("another bucket", |commit| commit["files"][0]["path"] = json!("s3://other/x")),
            ("missing file", |commit| commit["files"][0]["path"] = json!("versions/none/part.parquet")),
            ("wrong size", |commit| commit["files"][0]["bytes"] = json!(1)),
            ("one file twice", |commit| {
                let twice = commit["files"][0].clone();
                commit["files"].as_array_mut().unwrap().push(twice);
            }),
            ("negative size", |commit| commit["files"][0]["bytes"] = json!(-1)),
            ("other number", |commit| commit["version"] = json!(7)),
        ];
        for (_, edit) in edits {
            let copy = copied(case);
            edit_commit(&copy, edit);
            asks(case, &copy, &["ERR_"]);
        }
        for bytes in [&b""[..], b"{", b"[]", b"not JSON", b"\xff\xfe"] {
            let copy = copied(case);
            std::fs::write(commit(&copy), bytes).unwrap();
            asks(case, &copy, &["ERR_COMMIT: "]);
        }
        let copy = copied(case);
        let huge = std::fs::File::options().write(true).open(commit(&copy)).unwrap();
        huge.set_len(1 << 30).unwrap();
        asks(case, &copy, &["ERR_"]);
        let gap = copied(case);
        std::fs::copy(commit(&gap), commit(&gap).with_file_name("00000000000000000003.json")).unwrap();
        asks(case, &gap, &["ERR_COMMIT"]);
        let later = copied(case);
        edit_commit(&later, |commit| commit["of_a_later_minor_version"] = json!({ "a": [1, 2] }));
        works(case, &later);
    }),
    row(88, "a data file deleted by hand", |case| {
        let copy = case.path("two");
        let interactions = case.path("interactions.parquet");
        write(Path::new(&interactions), good());
        let train =
            ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &copy];
        succeed(train);
        let first = parts(Path::new(&copy));
        succeed([&train[..], &["--force"]].concat());
        let second = parts(Path::new(&copy)).into_iter().find(|part| !first.contains(part)).unwrap();
        std::fs::remove_file(Path::new(&copy).join(&second)).unwrap();
        let name = second.file_name().unwrap().to_string_lossy().into_owned();
        case.refuses(
            3,
            &["segment", "--quiet", "--solution", &copy, "--item", "item-3", "--output", "out"],
            &["version 2", &name],
        );
        case.works(&["segment", "--solution", &format!("{copy}@1"), "--item", "item-3", "--output", "out"], &["ok=1"]);
    }),
];

pub(super) fn copied(case: &Case) -> PathBuf {
    let copy = PathBuf::from(case.path("solution"));
    drop(std::fs::remove_dir_all(&copy));
    for file in files_below(Path::new(solution())) {
        let to = copy.join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(Path::new(solution()).join(&file), to).unwrap();
    }
    copy
}

fn trained(case: &Case, solution: &str, columns: Vec<(&'static str, ArrayRef)>) {
    let interactions = case.path("interactions.parquet");
    write(Path::new(&interactions), columns);
    let train = ["train", "--quiet", "--hidden-dimension", "32", "--regularization", "0.005", "--interactions"];
    succeed([&train[..], &[&interactions, "--solution", solution]].concat());
}

/// All files of a folder.
type Kept = Vec<(PathBuf, Vec<u8>)>;

fn kept(folder: &str) -> Kept {
    let files = files_below(Path::new(folder)).into_iter();
    files.map(|file| (file.clone(), std::fs::read(Path::new(folder).join(file)).unwrap())).collect()
}

/// A folder with these files and no other ones.
fn kept_again(folder: &str, files: &Kept) {
    std::fs::remove_dir_all(folder).unwrap();
    for (file, bytes) in files {
        let to = Path::new(folder).join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
}

/// Puts the model card of one solution into another one, whose commit then names it.
fn card_of(from: &str, to: &str) {
    let card = |solution: &str| {
        let parts = parts(Path::new(solution)).into_iter();
        parts.map(|part| Path::new(solution).join(part)).find(|part| part.ends_with("model.json")).unwrap()
    };
    let bytes = std::fs::read(card(from)).unwrap();
    std::fs::write(card(to), &bytes).unwrap();
    edit_commit(Path::new(to), |commit| {
        let files = commit["files"].as_array_mut().unwrap();
        let entry = files.iter_mut().find(|file| file["path"].as_str().unwrap().ends_with("model.json")).unwrap();
        entry["bytes"] = json!(bytes.len());
        entry["sha256"] = json!(item_affinity_storage::sha256_hex(&bytes));
    });
}

fn parts(solution: &Path) -> Vec<PathBuf> {
    let files = files_below(solution).into_iter().filter(|file| file.starts_with("versions"));
    files.filter(|file| file.file_name().is_some_and(|name| name != "_SUCCESS")).collect()
}

fn commit(solution: &Path) -> PathBuf {
    solution.join("_item_affinity/commits/00000000000000000001.json")
}

pub(super) fn edit_commit(solution: &Path, edit: impl FnOnce(&mut Value)) {
    let path = commit(solution);
    let mut body: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut body);
    std::fs::write(path, serde_json::to_vec(&body).unwrap()).unwrap();
}

/// Has a damaged file read by a command that needs it.
fn reads(case: &mut Case, solution: &Path, file: &str, says: &[&str]) {
    if file != "user_attributes.parquet" {
        return asks(case, solution, says);
    }
    let (solution, interactions, users) =
        (solution.display().to_string(), data("interactions.parquet"), data("users.parquet"));
    let refresh = ["refresh", "--quiet", "--solution", &solution, "--interactions", &interactions, "--users", &users];
    case.refuses(3, &refresh, says);
}

pub(super) fn asks(case: &mut Case, solution: &Path, says: &[&str]) {
    let solution = solution.display().to_string();
    case.refuses(3, &["segment", "--quiet", "--solution", &solution, "--item", "COFFEE-01", "--output", "out"], says);
}

fn works(case: &mut Case, solution: &Path) {
    let (solution, output) = (solution.display().to_string(), case.path(&format!("out{}", case.tries)));
    case.works(&["segment", "--solution", &solution, "--item", "COFFEE-01", "--output", &output], &["ok=1"]);
}
