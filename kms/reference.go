package kms

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/prpc"
)

// referenceMount is where the reference's guests and clients call.
const referenceMount = "/prpc/"

// reference is the reference's KMS service as its guests call it (dstack-core B.2),
// for one request: what a caller may have depends on its TLS certificate.
func (m *Member) reference(r *http.Request) *prpc.Service {
	return &prpc.Service{Methods: map[string]prpc.Method{
		"GetMeta":                prpc.NoArgs(m.refMeta),
		"GetAppEnvEncryptPubKey": prpc.Unary(m.refEnvKey),
		"GetTempCaCert":          prpc.NoArgs(m.refTempCA),
		"GetAppKey":              prpc.Unary(func(ctx context.Context, q appKeyRequest) (appKeyAnswer, error) { return m.refAppKey(ctx, q, r.TLS) }),
		"SignCert":               prpc.Unary(m.refSignCert),
	}, PostOnly: func(name string) bool { return name == "GetAppKey" || name == "SignCert" }}
}

// metaAnswer is the reference's GetMetaResponse as JSON.
type metaAnswer struct {
	CACert            string  `json:"ca_cert"`
	AllowAnyUpgrade   bool    `json:"allow_any_upgrade"`
	K256PubKey        string  `json:"k256_pubkey"`
	BootstrapInfo     any     `json:"bootstrap_info"`
	IsDev             bool    `json:"is_dev"`
	GatewayAppID      *string `json:"gateway_app_id"`
	KMSContract       *string `json:"kms_contract_address"`
	ChainID           *uint64 `json:"chain_id"`
	AppImplementation *string `json:"app_auth_implementation"`
}

// refMeta fails, as the reference's does, when the authority gives no answer.
func (m *Member) refMeta(ctx context.Context) (metaAnswer, error) {
	info, err := m.cfg.Authority.Info(ctx)
	if err != nil {
		return metaAnswer{}, err
	}
	e := m.machine.Epochs()
	return metaAnswer{
		CACert: m.rootPEM(), K256PubKey: hex.EncodeToString(e[len(e)-1].K256), IsDev: m.simulated,
		GatewayAppID: &info.GatewayAppID, KMSContract: &info.Contract, ChainID: &info.ChainID, AppImplementation: &info.AppImplementation,
	}, nil
}

type envKeyRequest struct {
	AppID string `json:"app_id"`
}

type envKeyAnswer struct {
	PublicKey   string `json:"public_key"`
	Signature   string `json:"signature"`
	Timestamp   uint64 `json:"timestamp"`
	SignatureV1 string `json:"signature_v1"`
}

// refEnvKey is GetAppEnvEncryptPubKey.
func (m *Member) refEnvKey(_ context.Context, req envKeyRequest) (envKeyAnswer, error) {
	app, err := cvm.ParseAppID(strings.TrimPrefix(req.AppID, "0x"))
	if err != nil {
		return envKeyAnswer{}, cvm.Errorf(cvm.Invalid, "app_id must be 20 bytes")
	}
	at := uint64(m.now().Unix())
	pub, v0, v1, err := m.vault.Load().EnvPublicKey(app, at)
	return envKeyAnswer{hex.EncodeToString(pub), hex.EncodeToString(v0), at, hex.EncodeToString(v1)}, err
}
