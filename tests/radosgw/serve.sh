#!/usr/bin/env bash
# A Ceph cluster in memory with its object gateway: one monitor, one disk, one radosgw, all on loopback.
#
#   serve.sh FOLDER MONITOR-PORT GATEWAY-PORT      the port after the monitor's is taken, too
#
# It prints `ready` when the gateway answers, and takes everything away, the folder too, when its stdin ends: that is
# when whoever started it ends, however that happens.
set -euo pipefail
folder=$1 monitor=$2 gateway=$3
# A tenant is what comes nearest to an account of AWS: it stands where the number does in ARNs.
account=123456789012
servers=()
ended() {
  kill -KILL "${servers[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap ended EXIT
mkdir -p "$folder/mon" "$folder/osd/0" "$folder/run"
cd "$folder"
cluster=$(cat /proc/sys/kernel/random/uuid)
disk=$(cat /proc/sys/kernel/random/uuid)
addresses="[v2:127.0.0.1:$monitor,v1:127.0.0.1:$((monitor + 1))]"
# One copy of everything, no manager, pools of one group. With authentication switched off radosgw hangs.
cat >ceph.conf <<CONF
[global]
fsid = $cluster
mon host = $addresses
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $folder/admin.keyring
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 2000
run dir = $folder/run
log file = $folder/run/\$name.log
admin socket = $folder/run/\$name.asok
pid file = $folder/run/\$name.pid
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[mon]
keyring = $folder/mon.keyring
mon data = $folder/mon
[osd]
keyring = $folder/osd/\$id/keyring
osd data = $folder/osd/\$id
[client.rgw.a]
keyring = $folder/rgw.keyring
# Without it every answer waits for a delayed acknowledgement.
rgw frontends = beast endpoint=127.0.0.1:$gateway tcp_nodelay=1
# Exactly 16 characters; it seals the session tokens.
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
# The reason of a refusal stands nowhere but in this log.
debug rgw = 10
CONF
export CEPH_CONF="$folder/ceph.conf"
{
  monmaptool --create --clobber --fsid "$cluster" --addv a "$addresses" monmap
  ceph-authtool --create-keyring mon.keyring --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool --create-keyring admin.keyring --gen-key -n client.admin \
    --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool mon.keyring --import-keyring admin.keyring
  ceph-mon --mkfs -i a --monmap monmap --keyring mon.keyring
  ceph-mon -f -i a 0</dev/null &
  servers+=($!)
  timeout 30 ceph osd new "$disk"
  timeout 30 ceph auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' -o osd/0/keyring
  timeout 30 ceph auth get-or-create client.rgw.a mon 'allow rwx' osd 'allow rwx' -o rgw.keyring
  ceph-osd -i 0 --mkfs --osd-uuid "$disk"
  ceph-osd -f -i 0 0</dev/null &
  servers+=($!)
  timeout 30 ceph osd crush add osd.0 1.0 root=default host=h
  radosgw -f -n client.rgw.a 0</dev/null &
  servers+=($!)
  for _ in $(seq 600); do
    curl --silent --fail --output /dev/null "http://127.0.0.1:$gateway/" && break
    sleep 0.1
  done
  timeout 30 radosgw-admin user create --tenant="$account" --uid=admin --display-name=admin --access-key=ADMIN --secret-key=of-this-test \
    --caps="roles=*;oidc-provider=*"
} >setup.log 2>&1 || { cat setup.log >&2; exit 1; }
echo ready
cat >/dev/null
