#!/bin/bash
# ait-jax run {{name}} on SLURM, one process a GPU: sbatch THIS_FILE; the same again resumes.
# Logs: {{run}}/logs/host_N.log. After it has failed for good, before trying again: rm -r {{run}}/status
#SBATCH --job-name={{name}}
#SBATCH --nodes={{nodes}}
#SBATCH --ntasks-per-node={{gpus}}
#SBATCH --gpus-per-node={{gpus}}
#SBATCH --time={{time}}
{{partition}}#SBATCH --output={{run}}/slurm.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Before the time limit: the run saves, and is put into the queue again.
#SBATCH --signal=TERM@{{notice}}
set -uo pipefail
export AIT_JAX_DISTRIBUTED=slurm PYTHONSAFEPATH=1
srun --kill-on-bad-exit=0 {{venv}}/bin/python -m ait_jax.launch.worker \
  {{flags}} \
  -- {{command}}
code=$?
case "$code" in
  0) echo "done" ;;
  {{given_up}}) echo "given up; see {{run}}/status" ;;
  {{preempted}}) scontrol requeue "$SLURM_JOB_ID" ;;
  *) # a node was lost
    if [ "${SLURM_RESTART_COUNT:-0}" -lt {{restarts}} ]; then
      scontrol requeue "$SLURM_JOB_ID"
    fi ;;
esac
exit "$code"
