module github.com/confidential-cloud/phala

go 1.26.0

// What is built here: systems with their own /proc among it, which nobody may walk.
ignore (
	./build
	./os/cache
)

// The newest versions of these three cannot be had from the module proxy used here.
replace golang.org/x/exp => golang.org/x/exp v0.0.0-20250408133849-7e4ce0ab07d0

replace github.com/Azure/go-ansiterm => github.com/Azure/go-ansiterm v0.0.0-20250102033503-faa5f7b0171c

replace github.com/google/pprof => github.com/google/pprof v0.0.0-20250403155104-27863c87afa6

require (
	github.com/caddyserver/certmagic v0.25.6 // gateway/certs: certificates from ACME and their renewal
	github.com/compose-spec/compose-go/v2 v2.16.2 // internal/composefile: the compose language as docker compose reads it
	github.com/containerd/errdefs v1.0.0 // what the docker client's errors are
	github.com/coreos/go-oidc/v3 v3.18.0 // api: sign-in with an OpenID provider
	github.com/danielgtaylor/huma/v2 v2.37.2 // api: OpenAPI 3.1 and validation from Go types
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // keys: secp256k1 without cgo
	github.com/docker/docker v28.5.2+incompatible // guest-agent/compose, vmm/container: the Docker engine's client
	github.com/ethereum/go-ethereum v1.16.9 // governance/ethereum, internal/wallet, devcloud/chain; 1.17 pulls refused modules with beacon
	github.com/fxamacker/cbor/v2 v2.9.0 // attest/measure: measurement.tdx.cbor
	github.com/go-chi/chi/v5 v5.5.0 // HTTP routes of the services
	github.com/go-pdf/fpdf v0.9.0 // api: invoices as PDF
	github.com/google/go-configfs-tsm v0.3.3 // attest/tdxguest: reports from configfs-tsm
	github.com/google/go-containerregistry v0.21.7 // internal/registry: an OCI registry in the process
	github.com/google/go-sev-guest v0.15.0 // attest/sevguest: a SEV-SNP guest's reports; oracle for our verifier in tests
	github.com/google/go-tdx-guest v0.3.2-0.20260305110651-91f9a52f36c7 // oracle for our verifier in tests (newest that is to be had)
	github.com/google/uuid v1.6.0 // ids of machines and CVMs
	github.com/hanwen/go-fuse/v2 v2.12.1 // attest/simtee/teefs: the kernel's TEE files, played by the simulator
	github.com/hashicorp/go-hclog v1.6.3 // the logger hashicorp/raft wants
	github.com/hashicorp/raft v1.8.0 // internal/replica: consensus of the KMS
	github.com/hashicorp/raft-boltdb/v2 v2.3.0 // its durable log; 2.3.1 wants a package of go-metrics that is gone
	github.com/hashicorp/yamux v0.1.2 // internal/hostlink: streams over one byte channel
	github.com/insomniacslk/dhcp v0.0.0-20260901064844-234b97448fae // vmm/netplane: the guests' DHCP server; guest-agent/vm: its client
	github.com/itchyny/gojq v0.12.20 // cli: phala api -q
	github.com/jackc/pgx/v5 v5.11.0 // internal/sqldb: the PostgreSQL driver
	github.com/letsencrypt/pebble/v2 v2.10.1 // tests: a real ACME server in the process
	github.com/libdns/libdns v1.1.1 // gateway/certs: DNS-01 for certmagic
	github.com/mattn/go-isatty v0.0.24 // cli: is this a terminal
	github.com/miekg/dns v1.1.73 // gateway/certs: RFC 2136 updates
	github.com/pelletier/go-toml/v2 v2.4.3 // internal/config: strict TOML with positions
	github.com/pressly/goose/v3 v3.29.0 // api/store: migrations
	github.com/prometheus/client_golang v1.24.1 // metrics
	github.com/riverqueue/river v0.31.0 // api/jobs: durable jobs on the API's database
	github.com/riverqueue/river/riverdriver/riverdatabasesql v0.31.0 // the same, on PostgreSQL, in the store's transactions
	github.com/riverqueue/river/riverdriver/riversqlite v0.31.0 // the same, on SQLite (exists at 0.31.0 only)
	github.com/riverqueue/river/rivertype v0.31.0 // the same, its types
	github.com/rogpeppe/go-internal v1.14.1 // testscript for the CLI's tests
	github.com/spf13/cobra v1.10.2 // command lines
	github.com/vishvananda/netlink v1.3.1 // guest-agent, vmm/netplane: links, addresses, routes, taps
	github.com/vmihailenco/msgpack/v5 v5.3.5 // attest: evidence encoding V1; ratls: APP_INFO
	go.uber.org/zap v1.28.0 // the logger certmagic wants
	go.yaml.in/yaml/v4 v4.0.0-rc.4 // internal/composefile: positions (the parser compose-go uses)
	golang.org/x/crypto v0.58.0 // keccak, HKDF, boxes, OCSP
	golang.org/x/mod v0.42.0 // ledger: Merkle trees and signed notes (sumdb)
	golang.org/x/net v0.61.0 // HTTP/2 in tests, html
	golang.org/x/oauth2 v0.36.0 // the same, its token exchange
	golang.org/x/sync v0.24.0 // errgroup, singleflight
	golang.org/x/sys v0.49.0 // unix calls of guest agent and VMM
	golang.org/x/term v0.47.0 // cli: passphrases, width
	golang.org/x/time v0.9.0 // rate limits
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446 // internal/wgnet: WireGuard in userspace
	gopkg.in/yaml.v3 v3.0.1 // indirect
	gvisor.dev/gvisor v0.0.0-20250503011706-39ed1f5ac29c // internal/wgnet: its TCP/IP stack
	modernc.org/sqlite v1.61.1 // internal/sqldb: SQLite without cgo
)

require go.etcd.io/bbolt v1.3.11 // the file of raft-boltdb

require (
	github.com/DataDog/zstd v1.5.2 // indirect
	github.com/Microsoft/go-winio v0.6.3 // indirect
	github.com/ProjectZKM/Ziren/crates/go-runtime/zkvm_runtime v0.0.0-20251001021608-1fe7b43fc4d6 // indirect
	github.com/StackExchange/wmi v1.2.1 // indirect
	github.com/VictoriaMetrics/fastcache v1.13.0 // indirect
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/bits-and-blooms/bitset v1.22.0 // indirect
	github.com/boltdb/bolt v1.3.1 // indirect
	github.com/caddyserver/zerossl v0.1.6 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/cockroachdb/errors v1.11.3 // indirect
	github.com/cockroachdb/fifo v0.0.0-20240606204812-0bbfbd93a7ce // indirect
	github.com/cockroachdb/logtags v0.0.0-20230118201751-21c54148d20b // indirect
	github.com/cockroachdb/pebble v1.1.5 // indirect
	github.com/cockroachdb/redact v1.1.5 // indirect
	github.com/cockroachdb/tokenbucket v0.0.0-20230807174530-cc333fc44b06 // indirect
	github.com/consensys/gnark-crypto v0.18.0 // indirect
	github.com/containerd/errdefs/pkg v0.3.0 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/crate-crypto/go-eth-kzg v1.4.0 // indirect
	github.com/crate-crypto/go-ipa v0.0.0-20240724233137-53bbb0ceb27a // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/dchest/siphash v1.2.3 // indirect
	github.com/deckarep/golang-set/v2 v2.6.0 // indirect
	github.com/distribution/reference v0.6.0 // indirect
	github.com/docker/cli v29.5.3+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/docker/go-connections v0.8.2 // indirect
	github.com/docker/go-units v0.5.0 // indirect
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/emicklei/dot v1.6.2 // indirect
	github.com/ethereum/c-kzg-4844/v2 v2.1.5 // indirect
	github.com/ethereum/go-bigmodexpfix v0.0.0-20250911101455-f9e208c548ab // indirect
	github.com/ethereum/go-verkle v0.2.2 // indirect
	github.com/fatih/color v1.16.0 // indirect
	github.com/felixge/httpsnoop v1.1.0 // indirect
	github.com/ferranbt/fastssz v0.1.4 // indirect
	github.com/fsnotify/fsnotify v1.6.0 // indirect
	github.com/getsentry/sentry-go v0.27.0 // indirect
	github.com/go-jose/go-jose/v4 v4.1.4 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-ole/go-ole v1.3.0 // indirect
	github.com/go-viper/mapstructure/v2 v2.4.0 // indirect
	github.com/gofrs/flock v0.12.1 // indirect
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang-jwt/jwt/v4 v4.5.2 // indirect
	github.com/golang/snappy v1.0.0 // indirect
	github.com/google/btree v1.1.2 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/go-eventlog v0.0.2-0.20241213203620-f921bdc3aeb0 // indirect
	github.com/google/go-tpm v0.9.0 // indirect
	github.com/google/logger v1.1.1 // indirect
	github.com/gorilla/websocket v1.4.2 // indirect
	github.com/hashicorp/go-bexpr v0.1.10 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/holiman/billy v0.0.0-20250707135307-f2f9b9aae7db // indirect
	github.com/holiman/bloomfilter/v2 v2.0.3 // indirect
	github.com/holiman/uint256 v1.3.2 // indirect
	github.com/huin/goupnp v1.3.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/itchyny/timefmt-go v0.1.9 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/jackpal/go-nat-pmp v1.0.2 // indirect
	github.com/josharian/native v1.1.0 // indirect
	github.com/klauspost/compress v1.20.1 // indirect
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/letsencrypt/challtestsrv v1.4.2 // indirect
	github.com/lib/pq v1.11.2 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-runewidth v0.0.31 // indirect
	github.com/mattn/go-shellwords v1.0.12 // indirect
	github.com/mdlayher/netlink v1.7.3-0.20250113171957-fbb4dce95f42 // indirect
	github.com/mdlayher/packet v1.1.2 // indirect
	github.com/mdlayher/socket v0.5.0 // indirect
	github.com/mfridman/interpolate v0.0.2 // indirect
	github.com/mholt/acmez/v3 v3.1.7 // indirect
	github.com/minio/sha256-simd v1.0.0 // indirect
	github.com/mitchellh/mapstructure v1.4.1 // indirect
	github.com/mitchellh/pointerstructure v1.2.0 // indirect
	github.com/moby/docker-image-spec v1.3.1 // indirect
	github.com/moby/sys/atomicwriter v0.1.0 // indirect
	github.com/moby/term v0.5.2 // indirect
	github.com/morikuni/aec v1.1.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/olekukonko/tablewriter v0.0.5 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/pion/dtls/v2 v2.2.7 // indirect
	github.com/pion/logging v0.2.2 // indirect
	github.com/pion/stun/v2 v2.0.0 // indirect
	github.com/pion/transport/v2 v2.2.1 // indirect
	github.com/pion/transport/v3 v3.0.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.71.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/riverqueue/river/riverdriver v0.31.0 // indirect
	github.com/riverqueue/river/rivershared v0.31.0 // indirect
	github.com/rs/cors v1.7.0 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.1 // indirect
	github.com/sethvargo/go-retry v0.5.0 // indirect
	github.com/shirou/gopsutil v3.21.4-0.20210419000835-c7a38de76ee5+incompatible // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/supranational/blst v0.3.16-0.20250831170142-f48500c1fdbe // indirect
	github.com/syndtr/goleveldb v1.0.1-0.20210819022825-2ae1ddf74ef7 // indirect
	github.com/tidwall/gjson v1.18.0 // indirect
	github.com/tidwall/match v1.2.0 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	github.com/tklauser/go-sysconf v0.3.12 // indirect
	github.com/tklauser/numcpus v0.6.1 // indirect
	github.com/u-root/uio v0.0.0-20230220225925-ffce2a382923 // indirect
	github.com/urfave/cli/v2 v2.27.5 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	github.com/xhit/go-str2duration/v2 v2.1.0 // indirect
	github.com/xrash/smetrics v0.0.0-20240521201337-686a1a2994c1 // indirect
	github.com/zeebo/blake3 v0.2.4 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp v0.72.0 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp v1.47.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap/exp v0.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/exp v0.0.0-20261011100332-faecfb24eb49 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
	gopkg.in/yaml.v2 v2.4.0 // indirect
	modernc.org/libc v1.79.0 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)
