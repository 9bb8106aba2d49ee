package measure

import "github.com/confidential-cloud/phala/cvm"

// SNPPolicy says how a SEV-SNP launch digest may be bound to an image. The zero
// value admits none.
type SNPPolicy struct {
	// Document admits what vm_config.sev_snp_measurement gives: the image is then named by os_image_hash.
	Document bool `json:"document"`
	// Digests are launch digests computed beforehand (phala measure) and the image each of them names.
	Digests map[cvm.Measurement]cvm.ImageHash `json:"digests"`
}
