package collateral

import (
	"bytes"
	"encoding/base64"
	"errors"
)

const (
	pemBegin = "-----BEGIN CERTIFICATE-----\n"
	pemEnd   = "-----END CERTIFICATE-----"
	pemLine  = 64 // base64 characters in each line but the last
)

var (
	errNotPEM       = errors.New("not PEM")
	errNotCanonical = errors.New("not canonical PEM")
)

// cutCertificate reads the certificate (DER) that text begins with. Only what
// encoding/pem writes for it is accepted, so that no two texts are one certificate;
// the last line end of text may be missing.
func cutCertificate(text []byte) (der, rest []byte, err error) {
	body, ok := bytes.CutPrefix(text, []byte(pemBegin))
	if !ok {
		return nil, nil, errNotPEM
	}
	end := bytes.Index(body, []byte(pemEnd))
	if end < 0 {
		return nil, nil, errNotPEM
	}
	body, rest = body[:end], body[end+len(pemEnd):]
	if len(rest) != 0 {
		if rest[0] != '\n' {
			return nil, nil, errNotCanonical
		}
		rest = rest[1:]
	}
	der = make([]byte, base64.StdEncoding.DecodedLen(len(body)))
	n, err := base64.StdEncoding.Strict().Decode(der, body)
	if err != nil {
		return nil, nil, errNotPEM
	}
	// The decoder passes over line ends: they must be as many as the lines, and
	// stand at the ends of them.
	size := base64.StdEncoding.EncodedLen(n)
	if len(body) != size+(size+pemLine-1)/pemLine || size != 0 && body[len(body)-1] != '\n' {
		return nil, nil, errNotCanonical
	}
	for i := pemLine; i < len(body); i += pemLine + 1 {
		if body[i] != '\n' {
			return nil, nil, errNotCanonical
		}
	}
	return der[:n], rest, nil
}
