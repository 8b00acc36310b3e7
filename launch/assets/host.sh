set -euo pipefail
export PATH="$PATH:/snap/bin:/usr/local/bin"
run={{run}}
folder={{folder}}
stem={{stem}}
attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
hosts={{hosts}}
host=0
if [ "$hosts" -gt 1 ]; then
  host=$(curl -sf --retry 20 --retry-connrefused -H 'Metadata-Flavor: Google' \
    "$attributes/agent-worker-number")
fi
fail() {
  echo "ait-jax: $1" >&2
  printf '{"fingerprint": "%s", "host": %d, "hostname": "%s", "message": "%s", ' \
    {{fingerprint}} "$host" "$(hostname)" "$1" > "$run/failed.json"
  printf '"state": "failed", "time": %d}\n' "$(date +%s)" >> "$run/failed.json"
  # A host that cannot write there is silent; whoever launched it ends it then.
  again gcloud storage cp --quiet "$run/failed.json" "$folder/status/host_$host.json" || true
  gcloud storage cp --quiet "$run/install.log" "$folder/logs/host_$host.log" || true
  {{when_over}}
  exit 78
}
again() {
  for pause in {{pauses}}; do
    "$@" && return
    echo "failed: $*; again in $pause s"
    sleep "$pause"
  done
  "$@"
}
install() {
  rm -rf "$run/code" "$run/venv"
  mkdir -p "$run/code"
  again gcloud storage cp --quiet "$folder/code/$stem.tar.gz" "$run/code.tar.gz" \
    || fail "cannot read $folder/code/$stem.tar.gz; its service account needs storage access"
  echo "{{sha256}}  $run/code.tar.gz" | sha256sum --check --status \
    || fail "the code in the bucket does not have the SHA-256 that it was sent with"
  tar -xzf "$run/code.tar.gz" -C "$run/code"
  export UV_PYTHON_INSTALL_DIR="$run/python"
  again python3 -m pip install --quiet --upgrade --target "$run/uv" uv=={{uv_version}} \
    || fail "cannot install uv; has this host a way to the package index?"
  again "$run/uv/bin/uv" venv --quiet --python {{python_version}} "$run/venv" \
    || fail "uv cannot bring Python {{python_version}}"
  again "$run/uv/bin/uv" pip install --quiet --python "$run/venv/bin/python" \
    -c "$run/code/{{lock}}" "$run/code[tpu]" || fail "the packages of {{lock}} cannot be installed"
  echo "$stem" > "$run/installed"
}
if [ "$(cat "$run/installed" 2>/dev/null)" != "$stem" ]; then
  install > "$run/install.log" 2>&1
fi
cd "$run/code"
export AIT_JAX_DISTRIBUTED=tpu
# The installed package, not the folder of the same name here.
export PYTHONSAFEPATH=1
exec "$run/venv/bin/python" -m ait_jax.launch.worker --host="$host" \
  --work_dir="$run" --lock="$run/code/{{lock}}" \
  {{flags}} \
  -- {{command}}
