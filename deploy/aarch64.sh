#!/usr/bin/env bash
# aarch64.sh: see that 64-bit ARM gives the same answers, to the bit, on a Debian machine of another kind. Runs the engine
# under qemu-user with Debian's Python for arm64 and the wheels of constraints.txt; takes a quarter of an hour, most of it
# compiling. Needs root for apt, and a .venv with the project. Says nothing about speed.
#
#     deploy/aarch64.sh [work folder]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath -m "${1:-build/aarch64}") python=.venv/bin/python
# shellcheck source=/dev/null
version=$(. /etc/os-release; [ "$VERSION_ID" = 12 ] && echo 3.11 || echo 3.13)
mkdir -p "$work/debs" "$work/root" "$work/site"
apt-get install -y -q qemu-user
dpkg --add-architecture arm64
apt-get update -q
packages=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libuuid1 libcrypt1)
packages+=("python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib")
packages+=("$([ "$version" = 3.11 ] && echo libssl3 || echo libssl3t64)")
(cd "$work/debs" && apt-get download -q "${packages[@]/%/:arm64}")
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
wheels=()
for name in numpy numba llvmlite tokenizers safetensors; do wheels+=("$(grep -m1 "^$name==" constraints.txt)"); done
platforms=()
for glibc in 2_17 2_27 2_28; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
"$python" -m pip install -q --target "$work/site" --platform manylinux2014_aarch64 "${platforms[@]}" \
  --python-version "$version" --implementation cp --only-binary :all: --no-deps --upgrade "${wheels[@]}"
here=$("$python" bench/equal.py | tail -1)
there=$(qemu-aarch64 -L "$work/root" -E "PYTHONPATH=$work/site:$PWD" -E "NUMBA_CACHE_DIR=$work/kernels" \
  -E PYTHONDONTWRITEBYTECODE=1 "$work/root/usr/bin/python$version" bench/equal.py | tail -1)
printf '%s\n%s\n' "$here" "$there"
[ "${here#*, }" = "${there#*, }" ] && echo "the same answers on both"
