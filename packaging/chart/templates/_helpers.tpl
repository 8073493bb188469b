{{/* The labels by which the pods are selected. */}}
{{- define "handshake.selector" -}}
app.kubernetes.io/name: handshake
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "handshake.labels" -}}
{{ include "handshake.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "handshake.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The path of the seccomp profile below the kubelet's folder `seccomp`. */}}
{{- define "handshake.profile" -}}
{{ .Values.seccomp.profile | default (printf "handshake/handshake-%s.json" .Chart.AppVersion) }}
{{- end }}

{{/* The command line, a JSON list: what the program of the image is called with. */}}
{{- define "handshake.args" -}}
{{- $args := list "serve" (printf "--metrics-listen=%s:%d" .Values.metrics.address (int64 .Values.metrics.port)) (printf "--max-flows=%d" (int64 .Values.maxFlows)) -}}
{{- range .Values.interfaces }}{{ $args = append $args (printf "--interface=%s" .) }}{{ end -}}
{{- range .Values.services }}{{ $args = append $args (printf "--service=%s" .) }}{{ end -}}
{{- range .Values.workloads }}{{ $args = append $args (printf "--workload=%s" .) }}{{ end -}}
{{- range .Values.labels }}{{ $args = append $args (printf "--label=%s" .) }}{{ end -}}
{{- range .Values.options }}{{ $args = append $args . }}{{ end -}}
{{ toJson $args }}
{{- end }}

{{/* The next power of two from a number on, between 64 and 2^27: the slots of a table. */}}
{{- define "handshake.slots" -}}
{{- $least := int64 . -}}
{{- $slots := int64 64 -}}
{{- range until 21 }}{{ if lt $slots $least }}{{ $slots = mul $slots 2 }}{{ end }}{{ end -}}
{{ $slots }}
{{- end }}

{{/*
What a run takes at its peak, bytes: the sum of handshake-agent/src/memory.rs, which `handshake doctor` prints.
A test holds both equal.
*/}}
{{- define "handshake.peak" -}}
{{- $flows := int64 .Values.maxFlows -}}
{{- $cpus := int64 .Values.cpus -}}
{{- $slots4 := include "handshake.slots" (mul 2 $flows) | int64 -}}
{{- $slots6 := include "handshake.slots" (div (add $flows 3) 4) | int64 -}}
{{- $room := max 16 (mul 2 (len .Values.interfaces)) | int64 -}}
{{- range .Values.interfaces }}{{ if regexMatch "[*?\\[]" . }}{{ $room = 1024 }}{{ end }}{{ end -}}
{{- if has "--wait" .Values.options }}{{ $room = 1024 }}{{ end -}}
{{- $far := max 1 (sub $room 8) -}}
{{- $makers := ternary 48 0 (has "--process" .Values.options) -}}
{{- $tables := add (mul $slots4 (add 80 $makers)) (mul $slots6 (add 144 $makers)) -}}
{{- $each := add 152064 (mul $far 512) -}}
{{ add $tables (mul $each $cpus) 41034536 }}
{{- end }}

{{/* The limit of memory: the peak in MiB, rounded up, and the headroom. */}}
{{- define "handshake.memory" -}}
{{- if .Values.memory.limit -}}
{{ .Values.memory.limit }}
{{- else -}}
{{ add (div (add (include "handshake.peak" . | int64) 1048575) 1048576) (int64 .Values.memory.headroom) }}Mi
{{- end -}}
{{- end }}
