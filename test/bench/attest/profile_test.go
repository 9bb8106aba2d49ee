package attest

import "testing"

// BenchmarkTDX is each TDX row of the table by itself, for the profiler
// (-bench 'TDX/attest.Verify' -cpuprofile ...). For comparing rows, TestTable is.
func BenchmarkTDX(b *testing.B) {
	for _, o := range tdxOps(b) {
		b.Run(o.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if o.prepare != nil {
					b.StopTimer()
					o.prepare()
					b.StartTimer()
				}
				if err := o.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
