#!/usr/bin/env bash
# Counts the instructions of some kernels under callgrind and compares them with instructions.txt, to 10 %.
#
#     benches/instructions.sh             compare; an error says which kernel differs, and by how much
#     benches/instructions.sh --update    write the counts of now
#
# No clock is involved: a busy machine counts the same. valgrind offers AVX2 and no AVX-512, whatever the processor has,
# so this guards the AVX2 paths. Other processors than x86-64 are passed over, and so is a machine without valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "no valgrind: instructions are not counted"
    exit 0
fi
if [ "$(uname -m)" != x86_64 ] || ! grep -qw avx2 /proc/cpuinfo; then
    echo "no x86-64 with AVX2: instructions are not counted"
    exit 0
fi

binary=$(cargo build --release --locked --workspace --bench instructions --message-format json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')
figures=benches/instructions.txt
counts=$(mktemp)
trap 'rm -f "$counts" "$counts.log"' EXIT

for kernel in $("$binary"); do
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect="*counted_$kernel*" "$binary" "$kernel" 2>"$counts.log" ||
        { cat "$counts.log" >&2; exit 1; }
    printf '%s %s\n' "$kernel" "$(sed -n 's/.*Collected : //p' "$counts.log")" >>"$counts"
done

if [ "${1:-}" = --update ]; then
    cp "$counts" "$figures"
    cat "$figures"
    exit 0
fi
awk '
    NR == FNR { committed[$1] = $2; next }
    {
        if (!($1 in committed) || committed[$1] + 0 == 0) { print $1 ": no committed count"; bad = 1; next }
        change = 100 * ($2 / committed[$1] - 1)
        printf "%-12s %12d instructions, committed %12d, %+.1f %%\n", $1, $2, committed[$1], change
        if (change > 10 || change < -10) { bad = 1 }
    }
    END {
        if (bad) { print "error: a kernel executes other instructions than committed; if that is meant: benches/instructions.sh --update"; exit 1 }
    }
' "$figures" "$counts"
