//! The Kubernetes manifests: their commands are commands of this binary, their names and ports fit one another.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::shell_words;
use crate::common::cli;

/// The documents of all manifests; none without a Python that reads YAML, which comes with the S3 test server.
fn documents() -> Option<Vec<Value>> {
    let server = std::env::var_os("ITEM_AFFINITY_MOTO_SERVER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/moto_server"), PathBuf::from);
    let python = server.with_file_name("python");
    if !python.exists() {
        println!("skipped 1 test (manifests): no {}", python.display());
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster");
    let mut found = Vec::new();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let script = "import json,sys,yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
        let output = Command::new(&python).args(["-c", script]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        found.extend(serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap());
    }
    Some(found)
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|d| d["kind"] == kind && d["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|value| value.as_str().expect("a text").to_owned()).collect()
}

fn argument<'a>(arguments: &'a [String], name: &str) -> &'a str {
    let of_name = |argument: &'a String| argument.strip_prefix(name)?.strip_prefix('=');
    arguments.iter().find_map(of_name).unwrap_or_else(|| panic!("no {name} in {arguments:?}"))
}

#[test]
fn cluster_manifests_say_what_the_binary_understands_and_fit_one_another() {
    let Some(documents) = documents() else { return };
    assert_eq!(documents.len(), 4);
    let api = |kind: &str| match kind {
        "Deployment" => "apps/v1",
        "Service" => "v1",
        "Job" => "batch/v1",
        other => panic!("a manifest of kind {other}"),
    };
    let mut images = Vec::new();
    for document in &documents {
        let kind = document["kind"].as_str().unwrap();
        assert_eq!(document["apiVersion"], api(kind), "{document}");
        let spec = &document["spec"];
        if kind == "Service" {
            continue;
        }
        if kind == "Deployment" {
            assert_eq!(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"], "{document}");
        }
        let pod = &spec["template"]["spec"];
        let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{document}") };
        images.push(container["image"].as_str().unwrap());
        assert_eq!(texts(&container["command"]), ["item-affinity"]);
        // Flags that there are not are refused before help is shown.
        let mut arguments = texts(&container["args"]);
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        for probe in ["readinessProbe", "livenessProbe"].into_iter().filter(|_| kind == "Deployment") {
            let port = &container[probe]["httpGet"]["port"];
            assert!(ports.iter().any(|p| p["name"] == *port), "{probe} asks at {port}: {document}");
        }
        for name in ["--port", "--grpc-port", "--health-port"] {
            let Some(number) = arguments.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=')) else { continue };
            let number = number.parse::<u64>().unwrap();
            assert!(ports.iter().any(|p| p["containerPort"] == number), "{name}: {document}");
        }
        arguments.push("--help".to_owned());
        let ended = cli(&arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    images.dedup();
    assert_eq!(images.len(), 1, "{images:?}");

    let service = named(&documents, "Service", "item-affinity-scheduler");
    let scheduler = named(&documents, "Deployment", "item-affinity-scheduler");
    let executor = named(&documents, "Deployment", "item-affinity-executor");
    let job = named(&documents, "Job", "item-affinity-segment");
    assert_eq!(service["spec"]["selector"], scheduler["spec"]["template"]["metadata"]["labels"]);
    let address = format!("df://item-affinity-scheduler:{}", service["spec"]["ports"][0]["port"]);
    let arguments = |of: &Value| texts(&of["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert_eq!(argument(&arguments(executor), "--scheduler"), address);
    assert_eq!(argument(&arguments(job), "--cluster"), address);
    assert_eq!(argument(&arguments(scheduler), "--external-host"), "item-affinity-scheduler");

    // An executor writes where a volume is, ends its tasks before it is killed, and knows when its scheduler is gone.
    let pod = &executor["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(argument(&arguments(executor), "--work-dir"), container["volumeMounts"][0]["mountPath"]);
    assert_eq!(container["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(30));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(scheduler["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"], "/healthz");
    let seconds = |text: &str| match text.split_at(text.len() - 1) {
        (number, "m") => 60 * number.parse::<u64>().unwrap(),
        (number, _) => number.parse::<u64>().unwrap(),
    };
    let (heartbeat, silent) = (arguments(executor), arguments(scheduler));
    assert!(2 * seconds(argument(&heartbeat, "--heartbeat")) < seconds(argument(&silent, "--executor-timeout")));
}

/// The oldest and the newest release of Kubernetes whose schemas the manifests must keep.
const KUBERNETES: [&str; 2] = ["1.28.0", "1.37.0"];

/// What a validator with the schemas of the Kubernetes API says of a file; none without one on this machine.
fn validated(release: &str, file: &Path) -> Option<(bool, String)> {
    let Some(program) = std::env::var_os("ITEM_AFFINITY_KUBERNETES_VALIDATE") else {
        println!("skipped 1 test (manifests and schemas): ITEM_AFFINITY_KUBERNETES_VALIDATE is not set");
        return None;
    };
    let mut command = Command::new(&program);
    let output = command.args(["--strict", "--kubernetes-version", release]).arg(file).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn cluster_manifests_keep_the_schemas_of_kubernetes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster");
    let mut passed = 0;
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        for release in KUBERNETES {
            let Some((valid, said)) = validated(release, &file) else { return };
            assert!(valid, "{said}");
            passed += said.matches(" passed for resource ").count();
        }
    }
    assert_eq!(passed, 4 * KUBERNETES.len());

    // The same check finds what is wrong.
    let executors = std::fs::read_to_string(folder.join("executors.yaml")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for (number, (right, wrong)) in
        [("replicas: 4", "replicas: four"), ("readinessProbe", "readynessProbe"), ("containerPort", "port")]
            .into_iter()
            .enumerate()
    {
        let file = scratch.path().join(format!("{number}.yaml"));
        std::fs::write(&file, executors.replace(right, wrong)).unwrap();
        let (valid, said) = validated(KUBERNETES[1], &file).unwrap();
        assert!(!valid && said.contains("did not validate"), "{wrong}: {said}");
    }
}

#[test]
fn cluster_commands_of_the_readme_are_commands_of_this_binary() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split_once("### On a cluster\n").unwrap().1;
    let block = section.split_once("```console\n").unwrap().1.split_once("```").unwrap().0.replace("\\\n", "");
    let commands = block.lines().filter_map(|line| line.strip_prefix("item-affinity ")).collect::<Vec<_>>();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let mut arguments = shell_words(command);
        arguments.push("--help".to_owned());
        let ended = cli(&arguments);
        assert_eq!(ended.code, 0, "{command}: {ended:?}");
    }
}
