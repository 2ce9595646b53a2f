#!/bin/sh
# Makes the certificates of the TLS tests: two authorities, servers and a client of the first, and a
# client of the second. They protect nothing and are valid for a hundred years, except the expired one.
set -eu
cd "$(dirname "$0")"
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 \
        -subj "/CN=divvy test authority $1" -keyout "$1.key" -out "$1.pem"
}
leaf() { # name, alternative names, usage, authority, days
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.csr"
    printf '%s\n' "basicConstraints=CA:FALSE" "subjectAltName=$2" "extendedKeyUsage=$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4.key" -CAcreateserial -days "$5" \
        -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}
# Replaces a leaf by one that was valid on the first of January 2020.
expire() {
    : > index
    printf '%s\n' "[ca]" "default_ca=d" "[d]" "database=index" "new_certs_dir=." "policy=p" \
        "default_md=sha256" "rand_serial=yes" "unique_subject=no" "x509_extensions=x" "[p]" \
        "commonName=supplied" "[x]" "subjectAltName=$2" "extendedKeyUsage=$3" > config
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    openssl ca -batch -config config -cert ca.pem -keyfile ca.key -in "$1.csr" -notext \
        -startdate 20200101000000Z -enddate 20200102000000Z -out "$1.pem"
    rm -f index* config "$1.csr" [0-9A-F][0-9A-F]*.pem
}
authority ca
authority other
leaf server "IP:127.0.0.1,DNS:localhost" serverAuth ca 36500
leaf expired "IP:127.0.0.1,DNS:localhost" serverAuth ca 1
expire expired "IP:127.0.0.1,DNS:localhost" serverAuth
leaf elsewhere "DNS:elsewhere.example" serverAuth ca 36500
leaf client "DNS:divvy-client" clientAuth ca 36500
leaf stranger "DNS:divvy-client" clientAuth other 36500
rm -f ca.key other.key ca.srl other.srl
