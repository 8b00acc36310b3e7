"""The start-up script of a Cloud TPU VM: installs Python, the code and the lock; starts the worker.

It runs as root at every boot of every host and leaves a systemd service that restarts what dies, so
no ssh connection has to last. TPU VM images come with Python 3.10, which current JAX does not
support; uv installs 3.11.
"""

import shlex

from ait_jax.launch import gcloud
from ait_jax.launch.launch_spec import LaunchSpec
from ait_jax.launch.source import LOCK, Source

UV_VERSION = "0.13.9"
PYTHON_VERSION = "3.11"
ROOT = "/opt/ait_jax"
UNITS = "/etc/systemd/system"
# The here-documents end at these lines; a command is one line, so it cannot contain them.
_HOST_END, _UNIT_END = "AIT_JAX_HOST", "AIT_JAX_UNIT"

_SCRIPT = """\
#!/bin/bash
# Start-up script of the ait-jax run {name}. Runs at every boot, as root.
set -euo pipefail
mkdir -p {run}
cat > {run}/host.sh.new <<'{host_end}'
{host}{host_end}
cat > {run}/unit.new <<'{unit_end}'
{unit}{unit_end}
# Another run's service would hold the TPU.
for other in {units}/ait-jax-*.service; do
  if [ -e "$other" ] && [ "$other" != {unit_path} ]; then
    systemctl disable --now "$(basename "$other")" || true
    rm -f "$other"
  fi
done
action=start
cmp -s {run}/host.sh.new {run}/host.sh || action=restart
mv {run}/host.sh.new {run}/host.sh
mv {run}/unit.new {unit_path}
systemctl daemon-reload
systemctl enable {service}
systemctl "$action" --no-block {service}
"""

_UNIT = """\
[Unit]
Description=ait-jax run {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/bin/bash {run}/host.sh
Environment=HOME=/root
Restart=on-failure
RestartSec=15
# 78: given up; the reason is in the bucket.
RestartPreventExitStatus=78
# SIGTERM goes to the worker alone, which passes it on and waits until the command has saved.
KillMode=mixed
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
"""

_HOST = """\
set -euo pipefail
export PATH="$PATH:/snap/bin:/usr/local/bin"
run={run}
folder={folder}
stem={stem}
attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
hosts={hosts}
host=0
if [ "$hosts" -gt 1 ]; then
  host=$(curl -sf --retry 20 --retry-connrefused -H 'Metadata-Flavor: Google' \\
    "$attributes/agent-worker-number")
fi
fail() {{
  echo "ait-jax: $1" >&2
  printf '{{"fingerprint": "%s", "host": %d, "hostname": "%s", "message": "%s", ' \\
    {fingerprint} "$host" "$(hostname)" "$1" > "$run/failed.json"
  printf '"state": "failed", "time": %d}}\\n' "$(date +%s)" >> "$run/failed.json"
  # A host that cannot write there is silent; whoever launched it ends it then.
  again gcloud storage cp --quiet "$run/failed.json" "$folder/status/host_$host.json" || true
  gcloud storage cp --quiet "$run/install.log" "$folder/logs/host_$host.log" || true
  {when_over}
  exit 78
}}
again() {{
  for pause in {pauses}; do
    "$@" && return
    echo "failed: $*; again in $pause s"
    sleep "$pause"
  done
  "$@"
}}
install() {{
  rm -rf "$run/code" "$run/venv"
  mkdir -p "$run/code"
  again gcloud storage cp --quiet "$folder/code/$stem.tar.gz" "$run/code.tar.gz" \\
    || fail "cannot read $folder/code/$stem.tar.gz; its service account needs storage access"
  echo "{sha256}  $run/code.tar.gz" | sha256sum --check --status \\
    || fail "the code in the bucket does not have the SHA-256 that it was sent with"
  tar -xzf "$run/code.tar.gz" -C "$run/code"
  export UV_PYTHON_INSTALL_DIR="$run/python"
  again python3 -m pip install --quiet --upgrade --target "$run/uv" uv=={uv_version} \\
    || fail "cannot install uv; has this host a way to the package index?"
  again "$run/uv/bin/uv" venv --quiet --python {python_version} "$run/venv" \\
    || fail "uv cannot bring Python {python_version}"
  again "$run/uv/bin/uv" pip install --quiet --python "$run/venv/bin/python" \\
    -c "$run/code/{lock}" "$run/code[tpu]" || fail "the packages of {lock} cannot be installed"
  echo "$stem" > "$run/installed"
}}
if [ "$(cat "$run/installed" 2>/dev/null)" != "$stem" ]; then
  install > "$run/install.log" 2>&1
fi
cd "$run/code"
export AIT_JAX_DISTRIBUTED={distributed}
# The installed package, not the folder of the same name here.
export PYTHONSAFEPATH=1
exec "$run/venv/bin/python" -m ait_jax.launch.worker --host="$host" \\
  --work_dir="$run" --lock="$run/code/{lock}" \\
  {flags} \\
  -- {command}
"""


def script(
    spec: LaunchSpec,
    source: Source,
    root: str = ROOT,
    units: str = UNITS,
    pauses: str = "5 10 20 40 80",
    idle_s: int = 900,
) -> str:
    """Returns the start-up script, for bash."""
    run = f"{root}/{spec.name}"
    flags = spec.worker_flags(source.commit)
    when_over = ""
    if spec.deletes:
        when_over = gcloud.show(gcloud.delete(spec, wait=False))
        flags.append(f"--when_over={when_over}")
        # As in the worker: an idle TPU costs as much as a busy one.
        when_over = f'if [ "$host" = 0 ]; then sleep {idle_s}; {when_over} || true; fi'
    host = _HOST.format(
        run=shlex.quote(run),
        folder=shlex.quote(spec.folder),
        stem=source.stem,
        fingerprint=spec.fingerprint(),
        hosts=spec.accelerator.hosts,
        sha256=source.sha256,
        uv_version=UV_VERSION,
        python_version=PYTHON_VERSION,
        lock=LOCK,
        pauses=pauses,
        distributed="tpu",
        when_over=when_over or ":",
        flags=" ".join(shlex.quote(flag) for flag in flags),
        command=shlex.join(spec.command),
    )
    service = f"ait-jax-{spec.name}.service"
    return _SCRIPT.format(
        name=spec.name,
        run=shlex.quote(run),
        units=shlex.quote(units),
        unit_path=shlex.quote(f"{units}/{service}"),
        service=service,
        host=host,
        host_end=_HOST_END,
        unit=_UNIT.format(name=spec.name, run=run),
        unit_end=_UNIT_END,
    )
