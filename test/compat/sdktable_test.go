package compat

import "strings"

// group is where a function of the SDK is called.
type group string

const (
	onCloud group = "cloud" // sdk.mjs, a stack without a chain
	onChain group = "chain" // chain.mjs, a stack with one
	alone   group = "local" // asks no cloud: pure, or a wallet in a browser
)

// export is one value that the SDK's declarations export.
type export struct {
	name   string
	group  group
	reason string // why its answer is another than the public cloud's
	want   string // part of the error then
}

// The functions that have a plain and a safe form.
const (
	cloudActions = `getCurrentUser getAvailableNodes listAllInstanceTypeFamilies listFamilyInstanceTypes listWorkspaces getWorkspace
		getWorkspaceNodes getWorkspaceQuotas getOsImages getKmsList getKmsInfo nextAppIds provisionCvm getAppEnvEncryptPubKey
		commitCvmProvision getCvmInfo getCvmList getCvmState getCvmStatusBatch getCvmStats getCvmNetwork getCvmContainersStats
		getCvmAttestation getCvmDockerCompose getCvmPreLaunchScript getCvmUserConfig getCvmComposeFile getAvailableOsImages getAppList
		getAppInfo getAppCvms getAppFilterOptions getAppDeviceAllowlist getAppRevisions getAppRevisionDetail getAppAttestation
		refreshCvmInstanceId refreshCvmInstanceIds updateCvmEnvs updateDockerCompose updatePreLaunchScript patchCvm
		provisionCvmComposeFileUpdate commitCvmComposeFileUpdate updateCvmVisibility updateCvmResources updateOsImage stopCvm startCvm
		restartCvm replicateCvm createAppInstance shutdownCvm deleteCvm createSshKey listSshKeys deleteSshKey
		importGithubProfileSshKeys syncGithubSshKeys`
	chainActions = `getKmsOnChainDetail deployAppAuth addComposeHash addDevice removeDevice setAllowAnyDevice getAllowedDevices
		checkDeviceAllowed checkComposeHashAllowed checkOnChainPrerequisites checkAppIsAllowed checkAppCvmsIsAllowed checkCvmIsAllowed
		confirmCvmPatch commitCvmUpdate`
	cloudOnes = `watchCvmState verifyEnvEncryptPublicKey encryptEnvVars getComposeHash ResourceError AuthError ValidationError createClient`
	chainOnes = `createClientsFromPrivateKey createNetworkClients extractNetworkClients checkBalance checkNetworkStatus
		validateNetworkPrerequisites waitForTransactionReceipt estimateTransactionGas executeTransaction executeTransactionWithRetry
		executeBatchTransactions SUPPORTED_CHAINS dstackAppAbi`
	// No request to a cloud: classes of errors, text and forms, a wallet in a browser.
	alones = `BusinessError ErrorCodes MAX_COMPOSE_PAYLOAD_BYTES MaxRetriesExceededError NetworkError PhalaCloudError RequestError
		SUPPORTED_API_VERSIONS ServerError TransactionError UnknownError WalletError WatchAbortedError addNetwork asHex autoCreateClients
		convertToHostname createBaseClient createClientsFromBrowser createTransactionTracker defineAction defineSimpleAction
		dumpAppCompose formatErrorMessage formatStructuredError formatValidationErrors generateDefaultCvmName generateFallbackHostname
		getErrorMessage getValidationFields isAppIdConflictError isConflictError isValidHostname parseApiError parseEnv parseEnvVars
		preprocessAppCompose refineCvmId sortObject switchToNetwork validateActionParameters safeValidateActionParameters
		validateComposePayloadSize withComposeMethods`
)

// reasons are the differences that stay, by the plain name.
var reasons = map[string]export{
	"nextAppIds":                 {reason: "without a chain an app's id is the first 20 bytes of its compose hash, so there is none to reserve", want: "app ids are not counted here"},
	"importGithubProfileSshKeys": {reason: "the cloud asks no third party: keys are added by their text", want: "imports no SSH keys"},
}

var exported = table()

func table() (all []export) {
	add := func(g group, names string, safe bool) {
		for _, n := range strings.Fields(names) {
			d := reasons[n]
			all = append(all, export{n, g, d.reason, d.want})
			if safe {
				all = append(all, export{"safe" + strings.ToUpper(n[:1]) + n[1:], g, d.reason, d.want})
			}
		}
	}
	add(onCloud, cloudActions, true)
	add(onChain, chainActions, true)
	add(onCloud, cloudOnes, false)
	add(onChain, chainOnes, false)
	add(alone, alones, false)
	return all
}
