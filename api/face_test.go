package api

import (
	"fmt"
	"testing"

	"github.com/confidential-cloud/phala/api/store"
)

func withPort(port int) store.CVM {
	return store.CVM{Body: store.Body{AppCompose: fmt.Appendf(nil, `{"manifest_version":2,"name":"x","runner":"docker-compose","gateway_enabled":true,"public_logs":true,
		"docker_compose_file":"services:\n  web:\n    image: nginx\n    ports:\n      - %d:80\n"}`, port)}}
}

// What is kept with a CVM is taken only for the app-compose that it was read from.
func TestFaceIsOfItsCompose(t *testing.T) {
	var f faces
	c := withPort(8080)
	read := f.of(c)
	if len(read.Ports) != 1 || read.Ports[0] != 8080 || !read.Gateway || !read.PublicLogs || !read.PublicTCB {
		t.Fatalf("%+v", read)
	}
	other := withPort(9090)
	other.Face = read
	if got := f.of(other); len(got.Ports) != 1 || got.Ports[0] != 9090 {
		t.Errorf("another compose's: %+v", got)
	}
	kept := *read
	kept.Ports = []int{1}
	if c.Face = &kept; f.of(c).Ports[0] != 1 {
		t.Error("what is kept was read again")
	}
}

func TestFacesAreBounded(t *testing.T) {
	var f faces
	first := f.of(withPort(1))
	for i := range 3 * maxFaces {
		f.add(&store.Face{Of: fmt.Sprint(i)})
		if i%1000 == 0 && f.of(withPort(1)) != first {
			t.Fatalf("after %d others what is asked for again and again was forgotten", i)
		}
	}
	if n := len(f.young) + len(f.old); n > 2*maxFaces {
		t.Errorf("%d remembered", n)
	}
}
