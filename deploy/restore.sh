#!/usr/bin/env bash
# Brings back what deploy/backup.sh kept; what the stack holds now is REPLACED. A backup of an older version is migrated at the next up.
#   deploy/restore.sh FOLDER
# COMPOSE is the compose command, with its options if it needs any (default: docker compose).
set -euo pipefail
folder=${1:?usage: deploy/restore.sh FOLDER}
for file in database.dump files.tar; do
  if [[ ! -s $folder/$file ]]; then
    echo "$folder/$file is missing or empty: no backup" >&2
    exit 2
  fi
done
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}

$compose --profile replicas stop api api-2
$compose up -d db
for attempt in $(seq 60); do
  $compose exec -T db pg_isready -q -h 127.0.0.1 -U consilium -d consilium && break
  [[ $attempt -lt 60 ]] || { echo "the database does not start: $compose logs db" >&2; exit 1; }
  sleep 1
done

# Into a database beside the present one, which then takes its place: a restore that fails changes nothing.
$compose exec -T db dropdb -U consilium --if-exists restored
$compose exec -T db createdb -U consilium restored
$compose exec -T db pg_restore -U consilium --dbname restored --no-owner --exit-on-error --single-transaction <"$folder/database.dump"
$compose exec -T db dropdb -U consilium --maintenance-db postgres --force consilium
$compose exec -T db psql -U consilium -d postgres -q -c 'ALTER DATABASE restored RENAME TO consilium'
$compose run --rm --no-deps -T --entrypoint sh migrate -c 'rm -rf /data/files && tar --extract --directory /data' <"$folder/files.tar"
echo "restored from $folder; now: $compose up -d"
