"""Common English words beyond the lexicon, written down here so that each becomes a piece of the vocabulary."""

COMMON_WORDS = tuple(
    dict.fromkeys(
        """
a about above across act action add after again against age ago agree air all allow almost along already also
although always among amount an and animal another answer any anyone anything appear area argument around article as ask
asked at attack attention away baby back bad based be became because become been before began begin behind being believe
below best better between beyond big birth black blood body book both box boy brother brought build building business but
by call called came can cannot care carefully carry case cause center central century certain chance change character
check child choice choose choose city claim class classify clear clearly close cold color come common company compare
complete completed computer concept condition consider contain contains contains content context continue control
conversation correct correctly cost could country course cover create crime cut data date daughter day dead deal death
decide decision deep define definition degree describe described describes description detail determine develop
development did die difference different difficult direct do document does doing done door doubt down draw drive drop
drug during each early easy eat economic education effect effort eight either element else emotion end english enough
entailment enter entire entity even evening event ever every everyone everything evidence exactly example except exist
expect experience explain explanation express expression eye face fact fail false family famous far fast father fear
feel feeling few field fight figure fill film final finally find finish fire first fish five fly follow following food
for force foreign form former found four free friend from front full function further future game gave general generate
generated get girl give given gives go god going gold gone good got government great ground group grow guess guest had
hair half hand happen happened happy hard has hate have he head health hear heard heart heat heavy help her here herself
high him himself his history hit hold home hope hot hour house how however human hundred husband idea identify if image
imagine important in include including increase incorrect indeed indicate individual industry information input instead
instruction interest international into involve is issue it item its itself job join just keep key kind knew know
knowledge known label lack land language large last late later laugh law lead learn least leave led left less let letter
level lie life light like likely limit line list listen literature little live lives living local location long look
looking lost lot love low made main make makes making man manner many market married match material matter may maybe me
mean meaning means measure media medical meet member mention mentioned message method middle might military million mind
minute miss model modern moment money month more morning most mother move movie much music must my myself name named
national natural nature near necessary need negative neither never new news next night nine no none nor normal not note
nothing noun now number object occur of off offensive offer office often oh old on once one only open opinion option or
order original other others our out outcome output outside over own owner page paper paragraph parent part particular
party pass passage past patient pattern pay peace people per percent perhaps period person phone phrase piece place plan
play player please point police political poor position positive possible power predict present president press pretty
problem process produce product program property protect prove provide provided public pull purpose put quality question
quick quickly quite race rather reach read reader reading real really reason receive recent recipe record relate related
relation relationship religious remain remember remove repeat replace report represent require required research resource
respond response rest result return review right rise road role room rule run said same save saw say says scene school
science sea search season seat second section see seem seen select sell send sense sent sentence sentences separate
series serious serve service set seven several shall share she short should show side sign similar simple simply since
single sister sit situation six size skill small so social society solution solve some someone something sometimes son
soon sort sound source south space speak special specific speech spell stand standard star start state statement stay
step still stop story strategy street strong structure student study stupid style subject success such sudden suggest sum
summary support sure surface system table take taken talk task teach team tell ten term test text than thank that the
their them themselves then theory there therefore these they thing things think third this those though thought thousand
three through throughout thus time title to today together told tomorrow too took top topic total toward town trade train
translate travel treat tree trial trouble true trust truth try turn two type under understand unit united until up upon us
use used useful user uses using usual usually value various verb very video view visit voice wait walk wall want war was
watch water way we week well went were west what when where whether which while white who whole whom whose why wide wife
will win window wish with within without woman word words work world worth would write written wrong wrote year yes yet
you young your yourself
able accident according account actor advice afternoon agent allowed amazing american answers apartment army arrive arrived
artist asking aunt average award bank baseball beautiful bed birthday boring boss bottle bottom bought brain bread break
breakfast bridge bright british broken budget bus buy camera camp car card career category chair cheap chemical chicken
children church citizen classification clean clothes club coach coffee cold college concerning connection consists contact
contradiction cook cool couple court cousin cream crowd culture cup customer damage danger dangerous dark debate deliver
delivery department design desk dialogue dinner disease distance doctor dog dollar dress drink driver dry duty earth
employee energy engine engineer environment equal exam excited exercise expensive experiment eyes factor farm favorite
female fiction finger floor flower forget forward fruit fun funny garden gas gift glass goal grade grass green grow guide
guy gun hall hat heard height hero hide hill hire holiday hospital hotel hurt ice impact improve injury inside interesting
interview island joke judge jump justice kid kids kill king kitchen lady lake laptop law lawyer lazy leader league lesson
library listed lose loud lunch machine male manager map mark math medicine meeting memory metal method mile milk mistake
mom mood mountain mouth murder museum nervous network newspaper nice noise north novel nurse ocean officer oil online
opposite painting pair park parents participant pet phrase picture pizza planet plant plastic plays poem popular post pot
practice prefer prepare prevent price prison prize professional professor project promise proud quiet rain rank rate ready
reaction red refer regular relax rent reply reporter request restaurant rich ride ring risk river rock safe salt scared
scientist score secret security sentiment shop shopping shot sick skin sleep smart smile smoke snow soft soldier song
sorry soup speaker species spend spent sport spring stage stairs station steal stomach stone store storm stranger strength
stress sugar suit summer sun surprise surprised swim target taste teacher team technology teeth telephone television
temperature test theater thinking ticket tired tool topic tour toxic traffic trip truck uncle unhappy university upset
usually vacation vegetable victim victory village violence waiting wash weather website wedding weekend weight wind
winner winter worker worried worry writer writing yard yellow yesterday
ability addition appropriate assume based belong category comment common complex considered convert corresponding
describing discuss entities exact expected extract figure followed generate hypothesis identical implied include infer
invalid kinds likely logical mentions multiple numerical original otherwise pairs paraphrase premise provide questions
references relevant sequence similarity span specified statements string subject subjective synonym tag tags term tokens
tweet valid verify whether
""".split()
    )
)

# Words that open sentences and fields; their capitalized forms are worth a piece of their own.
OPENING_WORDS = tuple(
    """
A An The In Is Are Do Does Did Was Were It He She They We You Your I My This That These There What When Where Which Who
Why How If For From On At And But So Then Now Given Write Read Find Classify Generate Answer Question Sentence Context
Definition Positive Negative Example Examples Input Output Explanation Complete Title Text Review Label Labels Statement
Option True False Yes No Not One Two Here All Some Word Words Note Each Choose Name Story Fact Passage Paragraph Premise
Hypothesis Otherwise Make Please
""".split()
)
