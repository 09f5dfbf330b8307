#!/usr/bin/env bash
# A Slurm job array: task i of n answers about the i-th shard. Submit it again, and it continues.
#   mkdir -p logs && sbatch --array=1-64 slurm.sh /data/shards /data/captions
#SBATCH --job-name=kosmos-edge
#SBATCH --cpus-per-task=2
#SBATCH --mem=3G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=logs/%A-%a.log
set -euo pipefail
input=${1:?expected the folder of the tar files}
output=${2:?expected a folder for the results}
shard=$SLURM_ARRAY_TASK_ID
shards=${SLURM_ARRAY_TASK_COUNT:-$SLURM_ARRAY_TASK_MAX}
mkdir -p "$output" "$output/journals"
result=$output/captions-$shard-of-$shards.parquet
[ ! -e "$result" ] || exit 0  # finished before
# A journal for each shard: on a network drive several processes must not share one.
exec kosmos-edge batch "$input"/*.tar --model "${KOSMOS_EDGE_MODEL:-kosmos-2}" --offline --threads "${SLURM_CPUS_PER_TASK:-2}" \
  --shard "$shard/$shards" --resume --journal "$output/journals/$shard-of-$shards.sqlite3" -o "$result"
