#!/usr/bin/env bash
# Everything that the compose stack knows, into a folder: the database and the files of batches. The stack may run meanwhile.
#   deploy/backup.sh FOLDER
# COMPOSE is the compose command, with its options if it needs any (default: docker compose).
set -euo pipefail
folder=${1:?usage: deploy/backup.sh FOLDER}
compose=${COMPOSE:-docker compose}
umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
if [[ -e $folder/database.dump ]]; then
  echo "$folder holds a backup already: name another folder" >&2
  exit 2
fi

# The database first: what it names in the second archive is there by then. Files that came later do no harm.
$compose exec -T db pg_dump -U consilium --format=custom consilium >"$folder/database.part"
$compose exec -T db pg_restore --list <"$folder/database.part" >/dev/null  # a dump that was cut off is noticed now
# An upload that is not complete (*.part) belongs to nothing yet. A file that changes while it is read makes tar end with 1: the archive is
# whole, as the next line sees.
$compose run --rm --no-deps -T --entrypoint tar migrate --create --directory /data --exclude ./cache --exclude ./vllm \
  --exclude './files/*.part' --warning=no-file-changed . >"$folder/files.part" || [[ $? -eq 1 ]]
tar --list --file "$folder/files.part" >/dev/null
mv "$folder/files.part" "$folder/files.tar"
mv "$folder/database.part" "$folder/database.dump"
echo "$folder: database $(du -h "$folder/database.dump" | cut -f1), files $(du -h "$folder/files.tar" | cut -f1)"
