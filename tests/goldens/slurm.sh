#!/bin/bash
# ait-jax run t5-xxl-seed0 on SLURM, one process a GPU: sbatch THIS_FILE; the same again resumes.
# Logs: /scratch/me/t5-xxl-seed0/logs/host_N.log. After it has failed for good, before trying again: rm -r /scratch/me/t5-xxl-seed0/status
#SBATCH --job-name=t5-xxl-seed0
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --partition=gpu-long
#SBATCH --output=/scratch/me/t5-xxl-seed0/slurm.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Before the time limit: the run saves, and is put into the queue again.
#SBATCH --signal=TERM@120
set -uo pipefail
export AIT_JAX_DISTRIBUTED=slurm PYTHONSAFEPATH=1
srun --kill-on-bad-exit=0 /opt/venv/bin/python -m ait_jax.launch.worker \
  --run_id=t5-xxl-seed0 --folder=/scratch/me/t5-xxl-seed0 --hosts=32 --chips=32 --expect_backend=gpu --fingerprint=10a295f34831 --max_retries=5 --grace_s=110 --work_dir=/tmp/ait_jax_t5-xxl-seed0 \
  -- run --gin_file=experiments/niv2_paper.gin --gin_file=models/xxl.gin '--gin.INIT_CHECKPOINT=gs://bucket/t5 1.1 xxl/checkpoint_1100000' --gin.MODEL_DIR=/scratch/me/t5-xxl-seed0/model_dir
code=$?
case "$code" in
  0) echo "done" ;;
  78) echo "given up; see /scratch/me/t5-xxl-seed0/status" ;;
  75) scontrol requeue "$SLURM_JOB_ID" ;;
  *) # a node was lost
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
      scontrol requeue "$SLURM_JOB_ID"
    fi ;;
esac
exit "$code"
