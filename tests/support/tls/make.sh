#!/bin/sh
# Makes the certificates of the TLS tests anew: two authorities, a server and a client of the first.
# They guard nothing and are valid for a hundred years.
set -eu
cd "$(dirname "$0")"
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 \
        -subj "/CN=divvy test authority $1" -keyout "$1.key" -out "$1.pem"
}
leaf() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.csr"
    printf '%s\n' "basicConstraints=CA:FALSE" "subjectAltName=$2" "extendedKeyUsage=$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 36500 \
        -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}
authority ca
authority other
leaf server "IP:127.0.0.1,DNS:localhost" serverAuth
leaf client "DNS:divvy-client" clientAuth
rm -f ca.key other.key ca.srl
