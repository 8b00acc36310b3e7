#!/bin/bash
# Start-up script of the ait-jax run {{name}}. Runs at every boot, as root.
set -euo pipefail
mkdir -p {{run}}
cat > {{run}}/host.sh.new <<'AIT_JAX_HOST'
{{host}}AIT_JAX_HOST
cat > {{run}}/unit.new <<'AIT_JAX_UNIT'
{{unit}}AIT_JAX_UNIT
# Another run's service would hold the TPU.
for other in {{units}}/ait-jax-*.service; do
  if [ -e "$other" ] && [ "$other" != {{unit_path}} ]; then
    systemctl disable --now "$(basename "$other")" || true
    rm -f "$other"
  fi
done
action=start
cmp -s {{run}}/host.sh.new {{run}}/host.sh || action=restart
mv {{run}}/host.sh.new {{run}}/host.sh
mv {{run}}/unit.new {{unit_path}}
systemctl daemon-reload
systemctl enable {{service}}
systemctl "$action" --no-block {{service}}
