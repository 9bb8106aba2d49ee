package cli

import (
	"slices"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// What somebody asks for and an update cannot give is said, and only that.
func TestWhatAnUpdateLeaves(t *testing.T) {
	yes, no, image, dev, region, node := true, false, "phala-1.0", "phala-dev-1.0", "us-west", 3
	prod := &cloudapi.CVMDetail{}
	prod.OS, prod.NodeInfo = &cloudapi.OSInfo{Name: &image, IsDev: &no}, &cloudapi.NodeRef{ID: &node, Region: &region}
	develop := &cloudapi.CVMDetail{}
	develop.OS = &cloudapi.OSInfo{Name: &dev, IsDev: &yes}
	for name, tt := range map[string]struct {
		f    deployFlags
		old  *cloudapi.CVMDetail
		want []string
	}{
		"nothing asked":          {deployFlags{}, prod, nil},
		"the same":               {deployFlags{image: "phala-1.0", region: "US-West", nodeID: "3", noDevOS: true}, prod, nil},
		"another image":          {deployFlags{image: "phala-2.0"}, prod, []string{"--image phala-2.0 has no part in an update: phala-1.0 stays (phala api -X PATCH /cvms/ID/os-image changes it)"}},
		"another region":         {deployFlags{region: "eu"}, prod, []string{"--region eu has no part in an update: us-west stays (phala cvms replicate makes one elsewhere)"}},
		"another node":           {deployFlags{nodeID: "4"}, prod, []string{"--node-id 4 has no part in an update: 3 stays (phala cvms replicate makes one elsewhere)"}},
		"a development image":    {deployFlags{devOS: true}, prod, []string{"an update does not change between production and development images: phala-1.0 stays"}},
		"a production image":     {deployFlags{noDevOS: true}, develop, []string{"an update does not change between production and development images: phala-dev-1.0 stays"}},
		"a node nobody knows of": {deployFlags{nodeID: "4"}, develop, []string{"--node-id 4 has no part in an update: what it has stays (phala cvms replicate makes one elsewhere)"}},
	} {
		j := &job{f: &tt.f}
		if got := j.stays(tt.old); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n %q, want\n %q", name, got, tt.want)
		}
	}
}
